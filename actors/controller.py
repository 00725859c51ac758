"""The controller actor: observe -> reconcile -> publish, about twice a second.

Named and restartable, never on the path of a request. Doors ask it for "anything newer than what I
have" and are answered as soon as there is (a push without a list of whom to push to). While it is
dead they keep their last table; when it comes back they hand it the table it lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, cast

import ray
from ray import serve
from ray.actor import ActorHandle

from cluster.control.reconcile import DeploymentSeen, Snapshot, reconcile
from cluster.routing.table import RoutingTable

NAMESPACE = "squadron"
PERIOD_S = 0.5
LONG_POLL_S = 20.0
ORPHANED_S = 30.0
"""Without its application for this long the controller ends itself."""

logger = logging.getLogger("squadron.controller")


class Controller:
    """One an application. `generation` grows with every deploy of the configuration."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._generation = 0
        self._table: RoutingTable | None = None
        self._changed = asyncio.Condition()
        self._seen_app_s = time.monotonic()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def adopt(self, table: RoutingTable, generation: int) -> None:
        """A door brings the table of its configuration; the newest configuration wins."""
        if generation > self._generation or self._table is None:
            self._generation = generation
            await self._publish(table, reasons=(f"configuration {generation} adopted",))

    async def next_table(self, known_version: int) -> RoutingTable | None:
        """The table as soon as it is not `known_version`; None after `LONG_POLL_S` without news."""
        try:
            async with asyncio.timeout(LONG_POLL_S), self._changed:
                await self._changed.wait_for(
                    lambda: self._table is not None and self._table.version != known_version
                )
        except TimeoutError:
            return None
        return self._table

    async def table(self) -> RoutingTable | None:
        return self._table

    async def _run(self) -> None:
        while True:
            try:
                await self._pass()
            except Exception:
                # One failed observation must not end the controller; the next pass tries again.
                logger.exception("control pass failed")
            if time.monotonic() - self._seen_app_s > ORPHANED_S:
                logger.info("application %s is gone: the controller ends", self._app)
                ray.actor.exit_actor()
            await asyncio.sleep(PERIOD_S)

    async def _pass(self) -> None:
        deployments = await asyncio.to_thread(self._observe)
        if deployments is None:
            return
        self._seen_app_s = time.monotonic()
        if self._table is None:
            return
        snapshot = Snapshot(table=self._table, deployments=deployments)
        for action in reconcile(snapshot, next_version=time.time_ns()):
            await self._publish(action.table, action.reasons)

    def _observe(self) -> dict[str, DeploymentSeen] | None:
        """What Serve says of the application's deployments; None while it is not there."""
        application = serve.status().applications.get(self._app)
        if application is None:
            return None
        return {
            name: DeploymentSeen(
                status=str(seen.status.value),
                num_running=_count(seen.replica_states, "RUNNING"),
                num_starting=_count(seen.replica_states, "STARTING"),
                message=_told(seen.message),
            )
            for name, seen in application.deployments.items()
        }

    async def _publish(self, table: RoutingTable, reasons: tuple[str, ...]) -> None:
        for reason in reasons:
            logger.info("routing table %d: %s", table.version, reason)
        async with self._changed:
            self._table = table
            self._changed.notify_all()


def _count(states: Mapping[Any, int], wanted: str) -> int:
    # Typed as an enum, delivered as its values (Ray 2.60).
    return sum(n for state, n in states.items() if getattr(state, "value", state) == wanted)


def _told(message: str) -> str:
    """What a person needs of Serve's message: our own error at the end of a traceback, else the
    first line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("cluster.errors.")]
    return ours[-1].partition(": ")[2] if ours else (lines[0] if lines else "")


def controller_name(app: str) -> str:
    return f"squadron-controller:{app}"


def get_or_start_controller(app: str) -> ActorHandle[Controller]:
    """The application's controller; started here when there is none. Ray restarts it for ever."""
    actor = ray.remote(Controller)
    return cast(
        "ActorHandle[Controller]",
        actor.options(
            name=controller_name(app),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_concurrency=1000,
            num_cpus=0,
        ).remote(app),
    )
