"""A replica's first batches: of zeros, the smallest and the largest."""

from __future__ import annotations

import time
from typing import Any

from actors.batching.engine_run import EngineRun
from cluster.engines.engine import Engine
from cluster.scheduling.batch_limit import SEEN_ENOUGH
from cluster.scheduling.scheduler import Scheduler

LONG_S = 0.5
"""A batch that takes longer is measured once: starting is to take seconds, not minutes."""


def warm_up(engine: Engine, engine_run: EngineRun, scheduler: Scheduler[Any]) -> None:
    """In the engine's thread. What warm batches take is the start of the cost curve; in adaptive
    mode as often as it takes to judge by them."""
    sizes = sorted({1, scheduler.policy.max_batch_size})
    for rows in sizes:
        engine_run.warm_up(rows)
    for rows in {min(size, engine_run.max_rows) for size in sizes}:
        for _ in range(SEEN_ENOUGH):
            began_s, cpu_began_s = time.monotonic(), time.thread_time()
            engine.warm_up((rows,))
            cpu_s = time.thread_time() - cpu_began_s
            seconds = time.monotonic() - began_s
            scheduler.ran(rows, seconds, cpu_s)
            if not scheduler.is_adaptive or seconds > LONG_S:
                break
    scheduler.cap(engine_run.max_rows)
