"""A door tells the controller once a second what experiments came to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from itertools import count

import ray

from actors.experiments.client import ControllerClient
from actors.experiments.desk import ExperimentDesk
from cluster.experiments.report import Cost

logger = logging.getLogger("squadron.experiments")

SLICE_S = 0.5
SLICES_A_REPORT = 2
REPORTS_A_COST = 10
"""Reading a node's metrics takes some milliseconds."""


class Reporter:
    """What could not be told is told with the next."""

    def __init__(
        self,
        desk: ExperimentDesk,
        controller: ControllerClient,
        costs: Callable[[], Awaitable[Mapping[str, Cost]]],
    ) -> None:
        self._desk = desk
        self._costs = costs
        self._node = ray.get_runtime_context().get_node_id()
        self._controller = controller

    async def run(self) -> None:
        for turn in count():
            for _ in range(SLICES_A_REPORT):
                await asyncio.sleep(SLICE_S)
                self._desk.next_slice()
            try:
                await self.send()
                if turn % REPORTS_A_COST == 0:
                    await self._controller.ask("costs", self._node, await self._costs())
            except Exception as error:
                # The controller is away: nothing is lost, it gets everything when it is back.
                logger.info("no report was taken (%s)", type(error).__name__)

    async def send(self) -> None:
        """Raises: what `ControllerClient.ask` raises."""
        await self._controller.tell()
