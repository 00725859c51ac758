"""Energy of the processor packages where the machine lets it be read (RAPL). Profiles run on the
processor; GPUs are read where models are served (`actors/measures/devices.py`)."""

from __future__ import annotations

from pathlib import Path

RAPL = Path("/sys/class/powercap")


def read_joules(root: Path = RAPL) -> float | None:
    """Counted energy of all processor packages; None where the kernel does not show it."""
    total = 0.0
    found = False
    for file in root.glob("intel-rapl:[0-9]*/energy_uj"):
        if file.parent.name.count(":") > 1:
            continue
        try:
            total += int(file.read_text()) / 1e6
        except (OSError, ValueError):
            return None
        found = True
    return total if found else None
