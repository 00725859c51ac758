"""Whether a replica's process takes more than it may."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from cluster.config.variant import ProcessLimits

CPU_WINDOW_S = 10.0
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUsage:
    """At `at_s` (any clock): the resident set, and CPU seconds since the process began."""

    at_s: float
    resident_bytes: int
    cpu_s: float


class LimitJudge:
    """Looks at one usage after the other."""

    def __init__(self, limits: ProcessLimits) -> None:
        self._limits = limits
        self._seen: deque[ProcessUsage] = deque()

    def exceeded(self, usage: ProcessUsage) -> str:
        """What is taken too much of, with the numbers; empty when all is well."""
        limit_mb = self._limits.memory_limit_mb
        if limit_mb is not None and usage.resident_bytes > limit_mb * MIB:
            taken_mb = usage.resident_bytes / MIB
            return f"it holds {taken_mb:.0f} MiB of memory; limits.memory_limit_mb is {limit_mb:g}"
        return self._exceeded_cpu(usage)

    def _exceeded_cpu(self, usage: ProcessUsage) -> str:
        limit = self._limits.cpu_limit
        if limit is None:
            return ""
        self._seen.append(usage)
        # One from before the window stays: the mean is over the whole window, never over less.
        while len(self._seen) > 1 and usage.at_s - self._seen[1].at_s >= CPU_WINDOW_S:
            self._seen.popleft()
        first = self._seen[0]
        window_s = usage.at_s - first.at_s
        if window_s < CPU_WINDOW_S:
            return ""
        cores = (usage.cpu_s - first.cpu_s) / window_s
        if cores <= limit:
            return ""
        return f"it used {cores:.2f} cores for {window_s:.0f} s; limits.cpu_limit is {limit:g}"
