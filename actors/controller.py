"""The controller actor: observe -> reconcile -> publish, about twice a second.

Named and restartable, never on the path of a request. Doors ask it for "anything newer than what I
have" and are answered as soon as there is (a push without a list of whom to push to). While it is
dead they keep their last table; when it comes back they hand it the table it lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import ray
from ray.actor import ActorHandle

from actors.repository import apps
from actors.repository.commands import Commands
from actors.repository.control import RepositoryControl, RepositorySetup, app_prefix
from cluster.control.reconcile import DeploymentSeen, Snapshot, reconcile
from cluster.routing.table import RoutingTable

NAMESPACE = "squadron"
PERIOD_S = 0.5
LONG_POLL_S = 20.0
DOOR_GONE_S = 2 * LONG_POLL_S
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
        self._passing = asyncio.Lock()
        self._repository: RepositoryControl | None = None
        self._commands: Commands | None = None
        self._door_seen_s: dict[str, float] = {}
        self._at_rest: dict[str, int] = {}
        self._seen_app_s = time.monotonic()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def adopt(
        self, table: RoutingTable, generation: int, repository: RepositorySetup | None = None
    ) -> None:
        """A door brings the table of its configuration; the newest configuration wins.

        With a repository under control the table is made here, of what runs.
        """
        if generation <= self._generation and self._table is not None:
            return
        self._generation = generation
        if self._repository is not None:
            self._repository.give_up_all("the configuration changed meanwhile")
        if repository is None:
            self._repository = self._commands = None
            await self._publish(table, reasons=(f"configuration {generation} adopted",))
            return
        self._repository = RepositoryControl(self._app, repository)
        self._commands = Commands(self._repository, self._pass)
        await self._pass()

    async def load(self, model: str, config: str, files: Mapping[str, bytes]) -> RoutingTable:
        """The table in which the model serves as asked. Raises: what `Commands.load` raises."""
        await (await self._controlled()).load(model, config, files)
        assert self._table is not None  # a model was loaded into it
        return self._table

    async def unload(self, model: str, with_dependents: bool) -> RoutingTable:
        """The table without the model. Raises: ModelNotFound."""
        await (await self._controlled()).unload(model, with_dependents=with_dependents)
        assert self._table is not None
        return self._table

    async def at_rest(self, door: str, version: int) -> None:
        """A door tells that nothing of it is under way to what table `version` does not name."""
        self._at_rest[door] = max(version, self._at_rest.get(door, 0))
        self._door_seen_s[door] = time.monotonic()

    async def next_table(self, known_version: int, door: str = "") -> RoutingTable | None:
        """The table as soon as it is not `known_version`; None after `LONG_POLL_S` without news."""
        if door:
            self._door_seen_s[door] = time.monotonic()
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
                with contextlib.suppress(Exception):  # Serve itself may be gone
                    await self._remove(await asyncio.to_thread(apps.observe))
                ray.actor.exit_actor()
            await asyncio.sleep(PERIOD_S)

    async def _pass(self) -> None:
        async with self._passing:
            seen = await asyncio.to_thread(apps.observe)
            deployments = seen.get(self._app)
            if deployments is not None:
                self._seen_app_s = time.monotonic()
                await self._reconcile(seen, deployments)

    async def _reconcile(self, seen: apps.Seen, deployments: Mapping[str, DeploymentSeen]) -> None:
        control = self._repository
        if control is not None:
            table = control.step(seen)
            if self._table is None or table != replace(self._table, version=table.version):
                reasons = ("what is loaded or ready has changed",)
                await self._publish(replace(table, version=time.time_ns()), reasons)
            for call in control.act(seen, is_at_rest=self._are_doors_at_rest()):
                await asyncio.to_thread(call)
            return
        if self._table is None:
            return
        await self._remove(seen)
        snapshot = Snapshot(table=self._table, deployments=deployments)
        for action in reconcile(snapshot, next_version=time.time_ns()):
            await self._publish(action.table, action.reasons)

    async def _controlled(self) -> Commands:
        """A controller that has just come back waits for a door to tell it the configuration."""
        async with asyncio.timeout(LONG_POLL_S), self._changed:
            await self._changed.wait_for(lambda: self._commands is not None)
        assert self._commands is not None
        return self._commands

    def _are_doors_at_rest(self) -> bool:
        """Every door that is alive uses the present table, and nothing is under way by an old one.
        A door asks for news at least every `LONG_POLL_S`."""
        now_s = time.monotonic()
        alive = {door for door, at_s in self._door_seen_s.items() if now_s - at_s < DOOR_GONE_S}
        self._door_seen_s = {door: self._door_seen_s[door] for door in alive}
        version = 0 if self._table is None else self._table.version
        return bool(alive) and all(self._at_rest.get(door, 0) >= version for door in alive)

    async def _remove(self, seen: apps.Seen) -> None:
        """The models' own applications, when the repository is no longer under control."""
        for name in seen:
            if name.startswith(app_prefix(self._app)):
                await asyncio.to_thread(apps.delete, name)

    async def _publish(self, table: RoutingTable, reasons: tuple[str, ...]) -> None:
        for reason in reasons:
            logger.info("routing table %d: %s", table.version, reason)
        async with self._changed:
            self._table = table
            self._changed.notify_all()


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
