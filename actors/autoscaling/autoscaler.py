"""The actor that decides how many replicas run: doors tell it their load, Serve's controller what
runs; about once a second it asks `cluster.control.autoscaling` and Serve's policy carries it out.

An actor of its own, only there when a variant is autoscaled: neither a request nor the routing
table depends on it. While it is dead, every number stays as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from actors.autoscaling.names import NAMESPACE, autoscaler_name
from actors.autoscaling.setup import AutoscalingSetup
from actors.controller import controller_name
from actors.node_folder import metrics_folder
from cluster.control.autoscaling.fleet import Fleet
from cluster.control.autoscaling.gather import DeploymentReport, DoorReport, Gatherer
from cluster.control.autoscaling.load import Scaling
from cluster.observability.metrics import make_metrics

PERIOD_S = 1.0
MAX_KEPT = 50
ORPHANED_S = 60.0
"""Without a word from a door for this long the autoscaler ends itself."""

logger = logging.getLogger("squadron.autoscaling")


class Autoscaler:
    """One an application."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._setup: AutoscalingSetup | None = None
        self._fleet: Fleet | None = None
        self._gatherer = Gatherer(rows_at_once={})
        self._latest: dict[str, Scaling] = {}
        self._changes: deque[tuple[float, Scaling]] = deque(maxlen=MAX_KEPT)
        self._heard_s = time.monotonic()
        self._metrics = make_metrics(metrics_folder()).autoscaling
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def report(self, door: str, setup: AutoscalingSetup, report: DoorReport) -> None:
        """A door tells its load, and the configuration it works by; the newest one counts."""
        self._heard_s = time.monotonic()
        if self._setup is None or setup.generation > self._setup.generation:
            self._setup = setup
            self._fleet = Fleet(setup.variants, calls=setup.calls, budget=setup.budget)
            self._gatherer = Gatherer(rows_at_once=setup.rows_at_once)
            self._latest = {}
        self._gatherer.door(door, report, time.monotonic())

    async def exchange(self, seen: Mapping[str, DeploymentReport]) -> dict[str, int]:
        """Serve's controller tells what runs and is told how many shall; a variant that is not
        decided yet is left out."""
        for variant, report in seen.items():
            self._gatherer.serve(variant, report)
        return {name: each.num_replicas for name, each in self._latest.items()}

    def decisions(self) -> list[dict[str, object]]:
        """The latest decision of each variant, then the changes, the newest first; each with its
        `reason`, and `at_s` in seconds since 1970."""
        now_s = time.time()
        latest = [(now_s, each) for each in self._latest.values()]
        return [_told(at_s, each) for at_s, each in (*latest, *reversed(self._changes))]

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                self._decide()
                await self._publish()
            except Exception:
                # One failed decision must not end the autoscaler; the numbers stay meanwhile.
                logger.exception("no autoscaling decision")
            if time.monotonic() - self._heard_s > ORPHANED_S:
                ray.actor.exit_actor()

    async def _publish(self) -> None:
        """The controller shows them (`GET /admin/v1/autoscaling`, `squadron explain`)."""
        with contextlib.suppress(ValueError, RayActorError):  # no controller: it is coming back
            # Ray types the result of an async method as never.
            controller: Any = await asyncio.to_thread(
                ray.get_actor, controller_name(self._app), NAMESPACE
            )
            await controller.decided.remote(self.decisions())

    def _decide(self) -> None:
        load = self._gatherer.look(time.monotonic())
        if load is None or self._fleet is None:
            return
        for scaling in self._fleet.decide(load):
            self._latest[scaling.variant] = scaling
            self._metrics.target.labels(scaling.variant).set(scaling.num_replicas)
            if scaling.is_change:
                logger.info("%s", told_as_text(scaling))
                kind = "guard" if scaling.is_guard else "forecast"
                self._metrics.changes.labels(scaling.variant, kind).inc()
                self._changes.append((time.time(), scaling))


def told_as_text(scaling: Scaling) -> str:
    before = f"{scaling.num_before} -> " if scaling.is_change else ""
    return f"{scaling.variant}: {before}{scaling.num_replicas} replicas: {scaling.reason}"


def _told(at_s: float, scaling: Scaling) -> dict[str, object]:
    return {**asdict(scaling), "at_s": at_s, "is_change": scaling.is_change}


def get_or_start_autoscaler(app: str) -> ActorHandle[Autoscaler]:
    """The application's autoscaler; started here when there is none. Ray restarts it for ever."""
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
        ).remote(app),
    )
