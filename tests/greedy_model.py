"""A model that keeps what it is asked to: for tests of a process's limits."""

from __future__ import annotations

import numpy as np

from cluster.engines.python import LoadContext
from cluster.tensors import Array


class Greedy:
    """Each request makes it hold `mib` MiB more; it answers how many requests it has had."""

    def load(self, context: LoadContext) -> None:
        self.kept: list[Array] = []

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        self.kept.append(np.ones(int(inputs["mib"].reshape(-1)[0]) * 2**17))
        return {"held": np.array([[len(self.kept)]], np.int64)}
