"""Ranges that NVIDIA's profilers show beside the kernels (`nsys profile --trace cuda,nvtx`)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger("squadron.tracing")


class NvtxRanges:
    """`nvtx`: what has `range_push`, `range_pop`, `range_start` and `range_end`."""

    def __init__(self, nvtx: Any) -> None:
        self._nvtx = nvtx
        self._waiting: Any = None

    @contextmanager
    def range(self, name: str) -> Iterator[None]:
        """Around what this thread does."""
        self._nvtx.range_push(name)
        try:
            yield
        finally:
            self._nvtx.range_pop()

    def waits(self) -> None:
        """Somebody waits in the queue: the range begins with the first who does."""
        if self._waiting is None:
            self._waiting = self._nvtx.range_start("squadron queue")

    def taken(self) -> None:
        """A batch was taken out of the queue, in whatever thread."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._nvtx.range_end(waiting)


def nvtx_ranges() -> tuple[NvtxRanges | None, str]:
    """The ranges, or why there are none."""
    try:
        import torch
    except ImportError as error:
        return None, f"torch cannot be imported ({error})"
    if not torch.cuda.is_available():
        return None, "torch finds no CUDA device"
    return NvtxRanges(torch.cuda.nvtx), ""


def open_ranges(is_wanted: bool) -> NvtxRanges | None:
    """None when they are not wanted, or, with a line in the log, not possible."""
    if not is_wanted:
        return None
    ranges, reason = nvtx_ranges()
    if ranges is None:
        logger.warning("no NVTX ranges (server.tracing.nvtx): %s", reason)
    return ranges
