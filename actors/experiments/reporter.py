"""A door's line to the controller about experiments: sums out once a second, feedback in."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any

import ray

from actors.experiments.desk import ExperimentDesk
from cluster.experiments.report import Cost, Report

logger = logging.getLogger("squadron.experiments")

SLICE_S = 0.5
SLICES_A_REPORT = 2
REPORTS_A_COST = 10
"""Reading a node's metrics takes some milliseconds."""


class Reporter:
    """What the controller has not confirmed is sent again, under the same number."""

    def __init__(
        self,
        desk: ExperimentDesk,
        door: str,
        get_controller: Callable[[], Awaitable[Any]],
        costs: Callable[[], Awaitable[Mapping[str, Cost]]],
    ) -> None:
        self._desk = desk
        self._costs = costs
        self._node = ray.get_runtime_context().get_node_id()
        self._door = door
        self._get_controller = get_controller
        self._number = 0
        self._seen_feedback = 0
        self._unconfirmed: Report | None = None
        self._found: Counter[str] = Counter()

    async def run(self) -> None:
        for turn in count():
            for _ in range(SLICES_A_REPORT):
                await asyncio.sleep(SLICE_S)
                self._desk.next_slice()
            try:
                await self.send()
                if turn % REPORTS_A_COST == 0:
                    controller = await self._get_controller()
                    await controller.costs.remote(self._node, await self._costs())
            except Exception as error:
                # The controller is away: nothing is lost, it gets everything when it is back.
                logger.info("no report was taken (%s)", type(error).__name__)

    async def send(self) -> None:
        controller = await self._get_controller()
        if self._unconfirmed is None:
            tallies = self._desk.collect()
            if tallies:
                self._number += 1
                self._unconfirmed = Report(
                    door=self._door,
                    number=self._number,
                    tallies=tallies,
                    rated=self._desk.ratings(),
                    found=dict(self._found),
                )
                self._found.clear()
        upto, feedback = await controller.report.remote(
            self._door, self._unconfirmed, self._seen_feedback
        )
        self._unconfirmed = None
        self._seen_feedback = upto
        for experiment, each in feedback:
            self._found[experiment] += self._desk.rate(experiment, each)
