"""Libraries that talk to the console while they work: stdout belongs to `--json`."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Errors still reach the caller, as exceptions."""
    root = logging.getLogger()
    before = root.level
    others = [logging.getLogger(name) for name in ("nncf", "openvino", "onnxruntime", "onnxslim")]
    levels = [each.level for each in others]
    try:
        root.setLevel(logging.ERROR)
        for each in others:
            each.setLevel(logging.ERROR)
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(before)
        for each, level in zip(others, levels, strict=True):
            each.setLevel(level)
