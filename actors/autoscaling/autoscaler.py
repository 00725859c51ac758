"""The actor that decides how many replicas run: doors tell it their load, Serve's controller what
runs; about once a second it asks `cluster.control.autoscaling` and Serve's policy carries it out.

An actor of its own, only there when a variant is autoscaled: neither a request nor the routing
table depends on it. While it is dead, every number stays as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import Mapping
from typing import Any, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from actors.autoscaling.control import AutoscalingControl
from actors.autoscaling.names import NAMESPACE, autoscaler_name
from actors.autoscaling.setup import AutoscalingSetup
from actors.logs.set_up import set_up_logs, write_decisions
from actors.node_folder import metrics_folder
from actors.repository.names import controller_name
from cluster.config.observability.logs import LogsConfig
from cluster.control.autoscaling.gather import DeploymentReport, DoorReport
from cluster.observability.metrics import make_metrics

PERIOD_S = 1.0
RECOUNT_S = 30.0
KEEP_S = 60.0
"""Between two writings of what was learned of seasons; a bin of a day is 15 minutes."""
ORPHANED_S = 60.0
"""Without a word from a door for this long the autoscaler ends itself."""

logger = logging.getLogger("squadron.autoscaling")


class Autoscaler:
    """One an application."""

    def __init__(self, app: str, logs: LogsConfig) -> None:
        write_decisions()
        set_up_logs(logs, role="autoscaler")
        self._app = app
        self._control = AutoscalingControl(make_metrics(metrics_folder()).autoscaling)
        self._heard_s = time.monotonic()
        self._num_cores = 0
        self._has_remembered = False
        self._kept_s = time.monotonic()
        self._counted_s = -math.inf
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def log_as(self, logs: LogsConfig) -> None:
        """A door tells how the server's processes write their lines now."""
        set_up_logs(logs, role="autoscaler")

    async def report(self, door: str, setup: AutoscalingSetup, report: DoorReport) -> None:
        """See `AutoscalingControl`."""
        self._heard_s = time.monotonic()
        self._control.report(door, setup, report)

    async def exchange(self, seen: Mapping[str, DeploymentReport]) -> dict[str, int]:
        """See `AutoscalingControl`."""
        return self._control.exchange(seen)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                self._control.decide(await self._count_cores())
                await self._publish()
            except Exception:
                # One failed decision must not end the autoscaler; the numbers stay meanwhile.
                logger.exception("no autoscaling decision")
            if time.monotonic() - self._heard_s > ORPHANED_S:
                ray.actor.exit_actor()

    async def _count_cores(self) -> int:
        """Of all nodes, taken to be like this one: what Ray calls CPU is what it was told."""
        if time.monotonic() - self._counted_s > RECOUNT_S:
            nodes = await asyncio.to_thread(ray.nodes)
            self._num_cores = (os.cpu_count() or 1) * sum(node["Alive"] for node in nodes)
            self._counted_s = time.monotonic()
        return self._num_cores

    async def _publish(self) -> None:
        """The controller shows them (`GET /admin/v1/autoscaling`, `squadron explain`)."""
        with contextlib.suppress(ValueError, RayActorError):  # no controller: it is coming back
            # Ray types the result of an async method as never.
            controller: Any = await asyncio.to_thread(
                ray.get_actor, controller_name(self._app), NAMESPACE
            )
            await controller.decided.remote(self._control.decisions())
            if not self._has_remembered:
                known = await controller.seasons.remote()
                self._control.remember(known or "")
                self._has_remembered = known is not None
            elif time.monotonic() - self._kept_s > KEEP_S:
                await controller.keep_seasons.remote(self._control.seasons())
                self._kept_s = time.monotonic()


def get_or_start_autoscaler(app: str, logs: LogsConfig) -> ActorHandle[Autoscaler]:
    """The application's autoscaler; started here when there is none. Ray restarts it for ever, with
    the same arguments."""
    actor = ray.remote(Autoscaler)
    return cast(
        "ActorHandle[Autoscaler]",
        actor.options(
            name=autoscaler_name(app),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_concurrency=100,
            num_cpus=0,
        ).remote(app, logs),
    )
