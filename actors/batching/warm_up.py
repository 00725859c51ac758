"""A replica's first batches: of zeros, the smallest and the largest."""

from __future__ import annotations

import time
from typing import Any

from actors.batching.engine_run import EngineRun
from cluster.engines.engine import Engine
from cluster.scheduling.scheduler import Scheduler


def warm_up(engine: Engine, engine_run: EngineRun, scheduler: Scheduler[Any]) -> None:
    """In the engine's thread. What warm batches take is the start of the cost curve."""
    sizes = sorted({1, scheduler.policy.max_batch_size})
    for rows in sizes:
        engine_run.warm_up(rows)
    for rows in {min(size, engine_run.max_rows) for size in sizes}:
        began_s, cpu_began_s = time.monotonic(), time.thread_time()
        engine.warm_up((rows,))
        cpu_s = time.thread_time() - cpu_began_s
        scheduler.ran(rows, time.monotonic() - began_s, cpu_s)
    scheduler.cap(engine_run.max_rows)
