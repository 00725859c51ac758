"""Kubernetes' quantities as numbers."""

from __future__ import annotations

import math

_FACTORS = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    **{unit: 1e3**power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", 1)},
}
ALLOWED = "a number, with m, k, M, G, T, Ki, Mi, Gi or Ti"


def quantity(text: object) -> float:
    """`4`, `500m`, `8Gi`, `1e3`: cores, bytes or pieces. Raises: ValueError for anything else."""
    found = str(text)
    for unit in sorted(_FACTORS, key=len, reverse=True):
        if found.endswith(unit):
            return _number(found[: -len(unit)]) * _FACTORS[unit]
    return _number(found)


def is_quantity(text: object) -> bool:
    try:
        quantity(text)
    except ValueError:
        return False
    return True


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or "_" in text:
        raise ValueError(f"{text!r} is no quantity")
    return number
