"""A door tells the autoscaler what is asked of each variant, once a second."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Any

from actors.autoscaling.autoscaler import get_or_start_autoscaler
from actors.autoscaling.setup import AutoscalingSetup, autoscaling_setup
from actors.front_door import FrontDoor
from cluster.config.scaling.autoscaling import AutoscalingBudget
from cluster.control.autoscaling.gather import DoorLoad, DoorReport
from cluster.observability.metrics import LATENCY_BUCKETS_S

PERIOD_S = 1.0

logger = logging.getLogger("squadron.autoscaling")


class LoadWatch:
    """Adds up what a door's counts say; they are kept anyway, so a request costs nothing more.

    `generation`: of the door's configuration; its tables come later and have greater versions."""

    def __init__(self, door: FrontDoor, budget: AutoscalingBudget, generation: int) -> None:
        self._door = door
        self._budget = budget
        self._generation = generation
        self._table = door.table
        self._setup = autoscaling_setup(door.table, budget, generation)
        self.logs = door.server.logging
        self._arrived: dict[str, int] = {}
        self._answered: Counter[str] = Counter()
        self._in_time: Counter[str] = Counter()
        door.watch_tally(self._see)

    @property
    def setup(self) -> AutoscalingSetup:
        """Of the door's table: models come and go at run time."""
        if self._door.table is not self._table:
            self._table = self._door.table
            generation = max(self._generation, self._table.version)
            self._setup = autoscaling_setup(self._table, self._budget, generation)
        return self._setup

    def take(self) -> DoorReport:
        """What came since it was last asked."""
        arrived, since = self._door.arrivals(), self._door.answers.take()
        variants: dict[str, DoorLoad] = {}
        for name, slo_s in self.setup.slo_s.items():
            self._add(name, since.members.get(name, ()), slo_s)
        for name in self.setup.variants:
            total, waiting, under_way = arrived.get(name, (0, 0, 0))
            variants[name] = DoorLoad(
                num_arrived=max(0, total - self._arrived.get(name, 0)),
                rows_waiting=waiting,
                rows_under_way=under_way,
                num_answered=self._answered[name] + since.missed[name],
                num_in_time=self._in_time[name],
            )
            self._arrived[name] = total
        ensembles = {name: n for name, n in since.ensembles.items() if name in self.setup.calls}
        report = DoorReport(variants=variants, ensembles=ensembles)
        self._answered.clear()
        self._in_time.clear()
        return report

    def _see(self, model: str, variant: str, outcome: str, buckets: Sequence[int]) -> None:
        slo_s = self._setup.slo_s.get(variant)
        if slo_s is not None and outcome == "success":
            self._add(variant, buckets, slo_s)

    def _add(self, variant: str, buckets: Sequence[int], slo_s: float) -> None:
        if buckets:
            self._answered[variant] += sum(buckets)
            self._in_time[variant] += num_in_time(buckets, slo_s)


def num_in_time(buckets: Sequence[int], slo_s: float) -> int:
    """Those that took at most `slo_s`; inside a bucket as if they were spread evenly."""
    index = bisect_right(LATENCY_BUCKETS_S, slo_s)
    whole = sum(buckets[:index])
    if index >= len(LATENCY_BUCKETS_S):
        return whole + buckets[index]
    low = LATENCY_BUCKETS_S[index - 1] if index else 0.0
    share = (slo_s - low) / (LATENCY_BUCKETS_S[index] - low)
    return whole + round(buckets[index] * share)


async def report_load(watch: LoadWatch, app: str, door_id: str) -> None:
    """For ever. Without an autoscaler the counts of that second are lost, nothing else."""
    # Ray types the result of an async method as never; calls of the actor do return.
    actor: Any = None
    while True:
        await asyncio.sleep(PERIOD_S)
        report = watch.take()
        try:
            if actor is None:
                actor = await asyncio.to_thread(get_or_start_autoscaler, app, watch.logs)
                if watch.logs.format == "json":
                    await actor.log_as.remote(watch.logs)  # it may be there since other days
            await actor.report.remote(door_id, watch.setup, report)
        except Exception as error:
            actor = None
            logger.warning("no autoscaler (%s); the numbers stay", type(error).__name__)
