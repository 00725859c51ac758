"""Models that take what they are asked to: for tests of a process's limits."""

from __future__ import annotations

import time

import numpy as np

from cluster.engines.python import LoadContext
from cluster.tensors import Array


class Greedy:
    """Each row makes it hold `mib` MiB more; it answers how many rows it has kept something for."""

    def load(self, context: LoadContext) -> None:
        self.kept: list[Array] = []

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        wanted = inputs["mib"].reshape(-1)
        self.kept += [np.ones(int(mib) * 2**17) for mib in wanted if mib]
        return {"held": np.full((len(wanted), 1), len(self.kept), np.int64)}


class Busy:
    """Takes a core for as many seconds as it is asked to; says how many that were."""

    def load(self, context: LoadContext) -> None:
        pass

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        end_s = time.monotonic() + float(inputs["seconds"].max())
        while time.monotonic() < end_s:
            pass
        return {"taken": inputs["seconds"]}
