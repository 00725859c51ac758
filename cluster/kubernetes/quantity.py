"""Kubernetes' quantities as numbers."""

from __future__ import annotations

_FACTORS = {
    "m": 1e-3,
    **{unit: 1e3**power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", 1)},
}


def quantity(text: object) -> float:
    """`4`, `500m`, `8Gi`: in cores, bytes or pieces. Raises: ValueError for anything else."""
    found = str(text)
    for unit in sorted(_FACTORS, key=len, reverse=True):
        if found.endswith(unit):
            return float(found[: -len(unit)]) * _FACTORS[unit]
    return float(found)
