"""How a group's processes come to be: as children of this one, or as Ray actors of its bundles."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Protocol


class WorkerStarter(Protocol):
    """`host`: the address under which all nodes of the group reach this one; None when they are
    one node."""

    @property
    def host(self) -> str | None: ...

    def is_here(self, rank: int) -> bool:
        """Whether that shard is on this node."""

    def is_same_node(self, one: int, other: int) -> bool: ...

    def start(self, address: str, token: str) -> None:
        """Start every shard; they call at the address."""

    def failure(self) -> str:
        """What became of a shard that did not call; empty when nothing is known."""

    def stop(self) -> None:
        """End every shard at once."""


class ProcessStarter:
    """Children of this process, on this node: for a group without Ray (tests, measurements)."""

    host: str | None = None

    def __init__(self, num_shards: int) -> None:
        self._num_shards = num_shards
        self.processes: list[subprocess.Popen[str]] = []

    def is_here(self, rank: int) -> bool:
        return True

    def is_same_node(self, one: int, other: int) -> bool:
        return True

    def start(self, address: str, token: str) -> None:
        for rank in range(self._num_shards):
            process = subprocess.Popen(
                [sys.executable, "-m", "actors.sharding.shard_worker", address, str(rank)],
                stdin=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
            )
            assert process.stdin is not None
            process.stdin.write(f"{token}\n")
            process.stdin.close()
            self.processes.append(process)

    def failure(self) -> str:
        ended = [
            f"shard {rank} ended with {process.returncode}"
            for rank, process in enumerate(self.processes)
            if process.poll() is not None
        ]
        return ", ".join(ended)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
