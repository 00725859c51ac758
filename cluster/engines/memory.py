"""Whether an engine's failure means that a smaller batch may work."""

from __future__ import annotations

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
