"""The controller actor: observe -> reconcile -> act -> publish, about twice a second.

Named and restartable, never on the path of a request. Doors ask it for "anything newer than what I
have" and are answered as soon as there is (a push without a list of whom to push to); the question
also says what they have. While it is dead they keep their last table; when it comes back they hand
it their configuration's table, and it puts what was set at run time on top.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import ray
from ray.exceptions import RayActorError

from actors.experiments.control import ExperimentControl
from actors.experiments.doors import Doors
from actors.experiments.kept import StateSetup
from actors.experiments.start import start_experiments
from actors.logs.set_up import set_up_logs, write_decisions
from actors.measures.processes import watch_process
from actors.measures.recovery import RecoveryWatch
from actors.node_folder import metrics_folder
from actors.repository import apps
from actors.repository.commands import Commands
from actors.repository.control import RepositoryControl, RepositorySetup
from actors.repository.names import app_prefix
from actors.repository.state import RepositoryKeeper, kept_earlier
from cluster.config.observability.logs import LogsConfig
from cluster.control.reconcile import (
    DeploymentSeen,
    SetState,
    Snapshot,
    is_worth_a_line,
    reconcile,
    record,
    variants_seen,
)
from cluster.control.repository import Wanted
from cluster.experiments.report import Cost, Post, Report
from cluster.experiments.view import JsonObject
from cluster.observability.metrics import make_metrics
from cluster.routing.table import RoutingTable, next_version

PERIOD_S = 0.5
CALM_S = 10.0
CALM_PERIOD_S = 2.0
"""Serve is asked every pass; every so often when it has said the same for `CALM_S`: an answer costs
the two processes some 16 ms of CPU (2 here, the rest in Serve's)."""
KEEP_EVERY_S = 0.1
LONG_POLL_S = 20.0
DOOR_GONE_S = 2 * LONG_POLL_S
ORPHANED_S = 30.0
"""Without its application for this long the controller ends itself."""

_NO_STATE = StateSetup()

logger = logging.getLogger("squadron.controller")


class Controller:
    """One an application. `generation` grows with every deploy of the configuration."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._generation = 0
        self._base: RoutingTable | None = None
        self._is_base_new = False
        self._table: RoutingTable | None = None
        self._newest_version = 0
        self._changed = asyncio.Condition()
        self._passing = asyncio.Lock()
        self._experiments: ExperimentControl | None = None
        self._doors = Doors(app)
        self._autoscaling: list[JsonObject] = []
        self._repository: RepositoryControl | None = None
        self._commands: Commands | None = None
        self._door_seen_s: dict[str, float] = {}
        self._at_rest: dict[str, int] = {}
        self._gone_since_s: float | None = None
        self._seen: apps.Seen = {}
        self._observed_s = -math.inf
        self._moved_s = -math.inf
        self._kept_s = -math.inf
        recovery_seconds = make_metrics(metrics_folder()).recovery_seconds
        self._recovery = RecoveryWatch(
            app,
            lambda name, seconds: recovery_seconds.labels(name).observe(seconds),
            time.monotonic,
        )
        write_decisions()
        watch_process("controller")
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def adopt(
        self,
        table: RoutingTable,
        generation: int,
        repository: RepositorySetup | None = None,
        state: StateSetup = _NO_STATE,
    ) -> None:
        """A door brings the table of its configuration; the newest configuration wins. `state`:
        where what was set at run time is kept.

        With a repository under control the table is made here, of what runs.
        """
        if generation <= self._generation and self._base is not None:
            return
        self._generation = generation
        # Who orders configurations and tables alike (the autoscaler) takes its tables for newer.
        self._newest_version = max(self._newest_version, generation)
        self._base, self._is_base_new = table, True
        if self._experiments is None:
            self._experiments = start_experiments(self._app, state)
        self._experiments.adopt(table, generation)
        if self._repository is not None:
            self._repository.give_up_all("the configuration changed meanwhile")
        self._repository = self._commands = None
        if repository is not None:
            keeper = RepositoryKeeper(self._experiments, partial(kept_earlier, self._app))
            self._repository = RepositoryControl(self._app, repository, keeper)
            self._commands = Commands(self._repository, self._pass)
        await self._pass(reasons=(f"configuration {generation} adopted",))

    async def log_as(self, logs: LogsConfig) -> None:
        """A door tells how the server's processes write their lines."""
        set_up_logs(logs, role="controller")

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

    async def serving(self, model: str) -> Wanted | None:
        """How a model is served now, loads at run time counted; None while nothing says so."""
        return None if self._repository is None else self._repository.serving(model)

    async def at_rest(self, door: str, version: int) -> None:
        """A door tells that nothing of it is under way to what table `version` does not name."""
        self._at_rest[door] = max(version, self._at_rest.get(door, 0))
        self._door_seen_s[door] = time.monotonic()

    async def next_table(self, known_version: int, door: str = "") -> RoutingTable | None:
        """The table as soon as it is not `known_version`; None after `LONG_POLL_S` without news."""
        if door:
            self._door_seen_s[door] = time.monotonic()
            await self._doors.has(door, known_version)
        self._newest_version = max(self._newest_version, known_version)
        if self._table is not None and self._table.version < known_version:
            # An earlier controller made the door's, by a clock that has been set back since.
            await self._tell(self._table)
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

    async def report(
        self, door: str, report: Report | None, posts: Sequence[Post] = ()
    ) -> list[int | None]:
        """A door's counts since it last told, and feedback that it was given: how many values of
        each post were counted, None for no experiment. Returns when all that was kept."""
        control = await self._with_experiments()
        counted = control.take(door, report, posts)
        # What comes close together is written together.
        await asyncio.sleep(self._kept_s + KEEP_EVERY_S - time.monotonic())
        if control.keep():
            self._kept_s = time.monotonic()
        return counted

    async def costs(self, node: str, costs: Mapping[str, Cost]) -> None:
        """What a node's engines took since it started."""
        (await self._with_experiments()).take_costs(node, costs)

    async def set_weights(self, experiment: str, weights: Mapping[str, float]) -> JsonObject:
        """The experiment, when every live door has the new weights.

        Raises: ModelNotFound, InvalidRequest, DeadlineExceeded.
        """
        control = await self._with_experiments()
        control.set_weights(experiment, weights)
        await self._push((f"weights of {experiment} set by hand",))
        return control.view(experiment)

    async def reset_traffic(self, experiment: str) -> JsonObject:
        """The same for what the configuration says. Raises: ModelNotFound, DeadlineExceeded."""
        control = await self._with_experiments()
        control.reset(experiment)
        await self._push((f"{experiment} reset by hand",))
        return control.view(experiment)

    async def experiment(self, name: str) -> JsonObject:
        """Raises: ModelNotFound."""
        return (await self._with_experiments()).view(name)

    async def experiments(self) -> list[JsonObject]:
        return (await self._with_experiments()).views()

    async def events(self) -> list[JsonObject]:
        """Newest last."""
        return [asdict(event) for event in (await self._with_experiments()).events]

    async def lost(self, variant: str, replica: str, reason: str) -> None:
        """A replica that ends by itself says why; what Serve sees comes later."""
        self._moved_s = time.monotonic()
        self._recovery.lost(variant, replica, reason, (await self._with_experiments()).note)

    async def decided(self, decisions: Sequence[JsonObject]) -> None:
        """The autoscaling policy's latest decisions, each with its `reason`."""
        self._autoscaling = list(decisions)

    async def keep_seasons(self, text: str) -> None:
        """What the autoscaler has learned, for the next one. Nobody waits: it tells again."""
        if self._experiments is not None:
            self._experiments.keep_seasons(text)

    async def seasons(self) -> str | None:
        """None while no door has told where the state is."""
        return None if self._experiments is None else self._experiments.seasons

    async def autoscaling(self) -> list[JsonObject]:
        return self._autoscaling

    async def _run(self) -> None:
        while True:
            try:
                await self._pass()
            except RayActorError as error:
                # Serve's controller restarts, or Squadron is being stopped.
                logger.info("no control pass: %s", str(error).partition("\n")[0])
            except Exception:
                # One failed observation must not end the controller; the next pass tries again.
                logger.exception("control pass failed")
            gone_s = self._gone_since_s
            if gone_s is not None and time.monotonic() - gone_s > ORPHANED_S:
                logger.info("application %s is gone: the controller ends", self._app)
                with contextlib.suppress(Exception):  # Serve itself may be gone
                    await self._remove(await asyncio.to_thread(apps.observe))
                ray.actor.exit_actor()
            await asyncio.sleep(PERIOD_S)

    async def _pass(self, reasons: tuple[str, ...] = ()) -> None:
        async with self._passing:
            deployments, gone_since_s = None, self._gone_since_s
            try:
                seen = await self._observe(is_new=bool(reasons))
                deployments = seen.get(self._app)
            finally:
                # From the first look that did not find it: a pass may take longer than that.
                now_s = time.monotonic() if gone_since_s is None else gone_since_s
                self._gone_since_s = None if deployments is not None else now_s
            if deployments is not None:
                await self._reconcile(seen, deployments, reasons)

    async def _observe(self, *, is_new: bool) -> apps.Seen:
        """What Serve says now; what it said last while nothing moves, unless it `is_new`."""
        now_s = time.monotonic()
        is_calm = now_s - self._moved_s > CALM_S and self._repository is None
        is_calm = is_calm and not self._recovery.is_open
        if is_new or not is_calm or now_s - self._observed_s >= CALM_PERIOD_S:
            before, self._seen = self._seen, await asyncio.to_thread(apps.observe)
            self._observed_s = now_s
            if self._seen != before:
                self._moved_s = now_s
        return self._seen

    async def _reconcile(
        self,
        seen: apps.Seen,
        deployments: Mapping[str, DeploymentSeen],
        reasons: tuple[str, ...],
    ) -> None:
        if self._base is None or self._experiments is None:
            return
        control = self._repository
        if control is None:
            await self._remove(seen)
            is_first = self._table is None or self._is_base_new
            table = self._base if is_first or self._table is None else self._table
            variants = variants_seen(table, deployments)
        else:
            table, variants = control.step(seen), {}
            reasons = (*reasons, "what is loaded or ready has changed")
        snapshot = Snapshot(
            at_s=time.time(),
            seed=random.getrandbits(32),
            variants=variants,
            experiments=self._experiments.seen(),
        )
        actions = reconcile(snapshot)
        if is_worth_a_line(snapshot, actions):
            logger.info("pass %s", record(snapshot, actions))
            reasons = (*reasons, *(action.reason for action in actions))
        self._experiments.act(actions)
        self._recovery.look(seen, table, self._experiments.note)
        self._experiments.keep()
        states = {
            action.variant: (action.state, action.reason)
            for action in actions
            if isinstance(action, SetState)
        }
        replicas = {
            action.variant: action.num_replicas
            for action in actions
            if isinstance(action, SetState) and action.num_replicas is not None
        }
        table = table.with_states(states, version=0, replicas=replicas)
        await self._publish(table, reasons)
        self._is_base_new = False
        if control is not None:
            for call in control.act(seen, is_at_rest=self._are_doors_at_rest()):
                await asyncio.to_thread(call)

    async def _push(self, reasons: tuple[str, ...]) -> None:
        """Returns when every live door has the weights that are in force now."""
        async with self._passing:
            if self._table is not None:
                await self._publish(self._table, reasons)
        if self._table is not None:
            await self._doors.wait_for(self._table.version)

    async def _controlled(self) -> Commands:
        """A controller that has just come back waits for a door to tell it the configuration."""
        async with asyncio.timeout(LONG_POLL_S), self._changed:
            await self._changed.wait_for(lambda: self._commands is not None)
        assert self._commands is not None
        return self._commands

    async def _with_experiments(self) -> ExperimentControl:
        async with asyncio.timeout(LONG_POLL_S), self._changed:
            await self._changed.wait_for(lambda: self._table is not None)
        assert self._experiments is not None
        return self._experiments

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
        """With the weights in force; nothing when the doors know all that already."""
        assert self._experiments is not None
        table = table.with_weights(self._experiments.weights)
        if self._table is not None and table == replace(self._table, version=table.version):
            return
        await self._tell(table)
        for reason in reasons:
            logger.info("routing table %d: %s", self._newest_version, reason)

    async def _tell(self, table: RoutingTable) -> None:
        """Under a version that every door takes for news, also of a controller before this one."""
        async with self._changed:
            self._newest_version = next_version(time.time_ns(), self._newest_version)
            self._table = replace(table, version=self._newest_version)
            self._changed.notify_all()
