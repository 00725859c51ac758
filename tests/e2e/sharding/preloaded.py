"""Shards' processes that are forked where PyTorch and transformers are imported already.

Importing them takes each process six seconds of a core, and these tests start dozens. Not for a
GPU, which a process must not have touched before it is forked.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.process import BaseProcess

from actors.sharding.starters import ProcessStarter

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(
    [
        "cluster.engines.sharded.torch_part",
        "cluster.engines.sharded.exported.part",
        "actors.sharding.shard_worker",
    ]
)


class PreloadedStarter(ProcessStarter):
    """Children of a process that does nothing else; what they do is `shard_worker`'s own."""

    def __init__(self, num_shards: int) -> None:
        super().__init__(num_shards)
        self._children: list[BaseProcess] = []

    def start(self, address: str, token: str) -> None:
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        for rank in range(self._num_shards):
            child = _FORKING.Process(target=_serve, args=(address, rank, token, environment))
            child.start()
            self._children.append(child)

    def failure(self) -> str:
        ended = [
            f"shard {rank} ended with {child.exitcode}"
            for rank, child in enumerate(self._children)
            if child.exitcode is not None
        ]
        return ", ".join(ended)

    def stop(self) -> None:
        for child in self._children:
            child.kill()
        for child in self._children:
            child.join()


def _serve(address: str, rank: int, token: str, environment: dict[str, str]) -> None:
    from actors.sharding.shard_worker import run_shard

    os.environ.clear()
    os.environ.update(environment)
    run_shard(address, rank, token)
