"""What a device computes and moves where nobody measured it.

Source: NVIDIA's data sheets (dense bfloat16, without sparsity); of those, matrices reach about half
the arithmetic and copies four fifths of the bandwidth.
"""

from __future__ import annotations

GIB = 2**30

_GPUS: dict[str, tuple[float, float]] = {
    "H200": (989e12, 4.8e12),
    "H100": (989e12, 3.35e12),
    "A100": (312e12, 1.94e12),
    "L40S": (362e12, 0.86e12),
    "L4": (121e12, 0.30e12),
    "A10": (125e12, 0.60e12),
    "T4": (65e12, 0.32e12),
}
_UNKNOWN_GPU = (100e12, 0.8e12)
_CORE = (50e9, 10e9)
"""One core with 256-bit vectors in float32, and its share of the memory's bandwidth."""


def gpu_speed(name: str) -> tuple[float, float]:
    """(operations, bytes) a second, by the product's name."""
    words = name.upper().replace("-", " ").split()
    flops, moved = next((_GPUS[word] for word in words if word in _GPUS), _UNKNOWN_GPU)
    return flops * 0.5, moved * 0.8


def core_speed() -> tuple[float, float]:
    """(operations, bytes) a second."""
    return _CORE
