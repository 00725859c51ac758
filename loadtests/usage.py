"""What processes cost: CPU seconds and resident memory, by label, of whole process trees."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """By label (`replica`, `door`, `generator`, …): CPU seconds so far, resident bytes now."""

    cpu_s: Mapping[str, float]
    rss_bytes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Processes worth telling apart. A process that is gone counts nothing."""

    pids: Mapping[str, tuple[int, ...]]

    def read(self) -> Usage:
        cpu_s: dict[str, float] = {}
        rss_bytes: dict[str, int] = {}
        for label, pids in {**self.pids, "generator": (os.getpid(),)}.items():
            for pid in pids:
                try:
                    process = psutil.Process(pid)
                    times = process.cpu_times()
                    size = process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
                cpu_s[label] = cpu_s.get(label, 0.0) + times.user + times.system
                rss_bytes[label] = rss_bytes.get(label, 0) + size
        return Usage(cpu_s=cpu_s, rss_bytes=rss_bytes)


def cpu_us_per_request(before: Usage, after: Usage, num_requests: int) -> dict[str, float]:
    """**Units:** microseconds of CPU a request, by label; `server` is all but the generator."""
    if num_requests == 0:
        return {}
    spent = {
        label: (after.cpu_s[label] - before.cpu_s.get(label, 0.0)) * 1e6 / num_requests
        for label in after.cpu_s
    }
    server = sum(cost for label, cost in spent.items() if label != "generator")
    return {**spent, "server": server}


def process_tree(root_pid: int) -> dict[str, tuple[int, ...]]:
    """A server's processes by what they call themselves, `ray::Name.method` without the method.

    A process that renames itself (Ray's workers do) is found under its newest name.
    """
    found: dict[str, list[int]] = {}
    try:
        root = psutil.Process(root_pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return {}
    for process in processes:
        try:
            line = process.cmdline()
            label = _label(line[0] if line else process.name())
        except psutil.NoSuchProcess:
            continue
        found.setdefault(label, []).append(process.pid)
    return {label: tuple(pids) for label, pids in found.items()}


def _label(program: str) -> str:
    """`ray::ServeReplica:app:gateway.handle…` -> `replica gateway`; a path -> its last part."""
    if program.startswith("ray::ServeReplica:"):
        parts = program.removeprefix("ray::ServeReplica:").split(".")[0].split(":")
        return f"replica {parts[-1].split('(')[0].strip()}"
    if program.startswith("ray::"):
        return program.removeprefix("ray::").split(".")[0].split("(")[0].strip()
    return program.split(" ")[0].rsplit("/", 1)[-1]
