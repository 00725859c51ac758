"""A model that keeps what it is asked to: for tests of a process's limits."""

from __future__ import annotations

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
