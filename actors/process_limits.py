"""Holds a replica's process to the limits of its variant."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cluster.config.variant import ProcessLimits
from cluster.control.process_limits import LimitJudge, ProcessUsage
from cluster.errors import ConfigError

PERIOD_S = 0.25

logger = logging.getLogger("squadron.replica")


def end_process(reason: str) -> None:
    """At once: memory is short, and nothing may be left waiting for a shutdown that needs some."""
    logger.error("this replica is ended: %s", reason)
    os.kill(os.getpid(), signal.SIGKILL)


def own_threads() -> list[int]:
    """Linux keeps priority and cores by thread, and Serve builds replicas outside the main one."""
    return [int(each.name) for each in Path("/proc/self/task").iterdir()]


class ProcessGuard:
    """For as long as the process lives, from before its engine is loaded."""

    def __init__(self, limits: ProcessLimits, *, end: Callable[[str], None] = end_process) -> None:
        self._limits = limits
        self._end = end
        self._locks: list[int] = []

    def hold(self, *, threads: int, folder: Path) -> None:
        """`folder`: where the processes of the node share out the cores.

        Raises: ConfigError for a core that this process may not use.
        """
        limits = self._limits
        if limits.nice:
            for thread in own_threads():
                current = os.getpriority(os.PRIO_PROCESS, thread)
                os.setpriority(os.PRIO_PROCESS, thread, current + limits.nice)
        if limits.cpu_affinity:
            cores = self._own_cores(threads, folder)
            for thread in own_threads():
                os.sched_setaffinity(thread, cores)
        if limits.memory_limit_mb is not None or limits.cpu_limit is not None:
            threading.Thread(target=self._watch, name="process-limits", daemon=True).start()

    def _own_cores(self, threads: int, folder: Path) -> set[int]:
        """As many cores as there are threads, locked until the process ends."""
        wanted = self._limits.cpu_affinity
        there = os.sched_getaffinity(0)
        if not there.issuperset(wanted):
            raise ConfigError(
                f"limits.cpu_affinity names cores {sorted(set(wanted) - there)}; this process may "
                f"use {sorted(there)}",
                key="limits.cpu_affinity",
                value=str(list(wanted)),
                allowed=str(sorted(there)),
            )
        folder.mkdir(parents=True, exist_ok=True)
        own: set[int] = set()
        for core in wanted:
            if len(own) == threads:
                break
            lock = os.open(folder / f"core-{core}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
            else:
                self._locks.append(lock)
                own.add(core)
        return own if len(own) == threads else set(wanted)

    def _watch(self) -> None:
        judge = LimitJudge(self._limits)
        while True:
            reason = judge.exceeded(usage())
            if reason:
                self._end(reason)
                return
            time.sleep(PERIOD_S)


def usage() -> ProcessUsage:
    """Of this process, now."""
    times = os.times()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return ProcessUsage(
        at_s=time.monotonic(),
        resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
        cpu_s=times.user + times.system,
    )
