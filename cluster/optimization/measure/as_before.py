"""What a search does to torch in the caller's process, undone when it ends."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def torch_as_before(module: nn.Module | None = None, *, engine: str = "") -> Iterator[None]:
    """Torch has as many threads afterwards as before, and each layer of `module` the mode it had:
    the caller may be in the middle of training it. `engine`: the one that will run."""
    if engine == "torch":
        # What the caller will use later has its own number of threads as well.
        importlib.import_module("torch")
    torch: Any = sys.modules.get("torch")
    if torch is None:
        # Nobody here has used it yet.
        yield
        return
    threads = torch.get_num_threads()
    modes = [(each, each.training) for each in module.modules()] if module is not None else []
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        for each, is_training in modes:
            each.training = is_training
