"""The machine's processors and memory, from the kernel's own files."""

from __future__ import annotations

import threading
from pathlib import Path

from cluster.observability.device_metrics import CpuReading

PROC = Path("/proc")
_IDLE, _WAITS_FOR_DISK = 3, 4
"""Columns of the line `cpu` in /proc/stat. Source: proc_stat(5)."""
_MAIN = 8
"""The columns after them are parts of `user` and `nice`."""


class Machine:
    """Remembers the last reading: what was in use since then is a difference. Two doors of a node
    each have one of their own, and only the one that is scraped is asked."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._lock = threading.Lock()
        self._before = self._ticks()

    def read(self) -> CpuReading | None:
        """None where there is no /proc."""
        memory = self._memory_bytes()
        if "MemTotal" not in memory or "MemAvailable" not in memory:
            return None
        return CpuReading(
            busy=self._busy(),
            used_bytes=memory["MemTotal"] - memory["MemAvailable"],
            total_bytes=memory["MemTotal"],
        )

    def _busy(self) -> float | None:
        with self._lock:
            before, self._before = self._before, self._ticks()
            now = self._before
        if before is None or now is None or now[1] <= before[1]:
            return None
        return (now[0] - before[0]) / (now[1] - before[1])

    def _ticks(self) -> tuple[int, int] | None:
        """Those in use, and all of them."""
        try:
            first = (self._proc / "stat").read_text().partition("\n")[0].split()
        except OSError:
            return None
        ticks = [int(each) for each in first[1 : 1 + _MAIN]]
        return sum(ticks) - ticks[_IDLE] - ticks[_WAITS_FOR_DISK], sum(ticks)

    def _memory_bytes(self) -> dict[str, int]:
        try:
            lines = (self._proc / "meminfo").read_text().splitlines()
        except OSError:
            return {}
        told = (line.split() for line in lines)
        return {each[0].rstrip(":"): int(each[1]) * 1024 for each in told if len(each) == 3}
