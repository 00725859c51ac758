"""Copies of requests to other variants, after the caller has its answer. What comes back is
compared and thrown away; where a variant is busy, or a caller's request might have to wait for
copies, the copy is not sent.

Copies wait for company: those of a tenth of a second leave together and share an envelope, its
answer and the turns of the loop. One by one each cost the door as much as its original."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from actors.experiments.beside import Beside
from cluster.config.experiment import MirrorConfig
from cluster.errors import ModelNotFound, SquadronError
from cluster.experiments.agreement import compare
from cluster.experiments.counts import Agreement
from cluster.requests import Assignment, InferenceRequest, rows_of
from cluster.routing.table import ExperimentRoute, VariantRoute
from cluster.tensors import Tensor

if TYPE_CHECKING:
    from actors.front_door import FrontDoor

MAX_UNDER_WAY = 256
"""Copies at once at a door, of all experiments, waiting or sent."""
GATHER_S = 0.1
MAX_BYTES_UNDER_WAY = 64 * 2**20
"""Of their inputs, and of the answers that theirs are compared with: the caller has its own, so
nothing else bounds them any more."""
COMPARED_IN_LOOP_BYTES = 64 * 1024
"""Larger answers are compared in a thread."""


class Mirror:
    """Bound to one front door. `draw` is uniform in [0, 1)."""

    def __init__(self, door: FrontDoor, draw: Callable[[], float]) -> None:
        self._door = door
        self._draw = draw
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: list[tuple[int, Assignment, InferenceRequest, tuple[Tensor, ...]]] = []
        self._num_bytes = 0
        self._beside = Beside()

    def offer(self, request: InferenceRequest, given: Sequence[Tensor]) -> None:
        """`given`: the answer that the caller has had."""
        config = self.config_of(request)
        if config is None or request.assignment is None:
            return
        if config.share < 1 and self._draw() >= config.share:
            return
        self._gather(config, request.assignment, request, given)

    def config_of(self, request: InferenceRequest) -> MirrorConfig | None:
        """None where no copy of it goes anywhere."""
        if request.assignment is None:
            return None
        route = self._door.table.routes.get(request.assignment.experiment)
        if not isinstance(route, ExperimentRoute) or route.config is None:
            return None
        return route.config.mirror

    def _gather(
        self,
        config: MirrorConfig,
        assignment: Assignment,
        request: InferenceRequest,
        given: Sequence[Tensor],
    ) -> None:
        num_bytes = sum(tensor.num_bytes for tensor in (*request.inputs, *given))
        for variant in config.variants:
            if variant == assignment.arm:
                continue
            is_full = self._num_bytes + num_bytes > MAX_BYTES_UNDER_WAY
            if is_full or len(self._tasks) + len(self._waiting) >= MAX_UNDER_WAY:
                self._door.experiments.mirrored(assignment, variant, Agreement(num_skipped=1))
                continue
            copy = replace(
                request,
                model=variant,
                version="",
                assignment=None,
                affinity_key="",
                follower=None,
                # It begins when the caller has its answer.
                deadline_s=None,
                # A stream's way to its replica changes its own.
                parameters=dict(request.parameters),
            )
            if not self._waiting:
                asyncio.get_running_loop().call_later(GATHER_S, self._send)
            self._num_bytes += num_bytes
            self._waiting.append((num_bytes, assignment, copy, tuple(given)))

    def _send(self) -> None:
        """All of one turn of the loop, so that they travel together."""
        waiting, self._waiting = self._waiting, []
        loop = asyncio.get_running_loop()
        arrived, room = self._door.arrivals(), dict[str, float]()
        for num_bytes, assignment, copy, given in waiting:
            try:
                route = self._door.route(copy.model)
            except ModelNotFound:
                route = None  # unloaded meanwhile
            if not isinstance(route, VariantRoute):
                self._num_bytes -= num_bytes
                self._door.experiments.mirrored(assignment, copy.model, Agreement(num_failed=1))
                continue
            left = room.get(route.name)
            if left is None:
                left = self._beside.room(route, arrived.get(route.name), loop.time())
            rows = rows_of(copy) if route.facts.is_batched else 1
            if rows > left:
                self._num_bytes -= num_bytes
                room[route.name] = left
                self._door.experiments.mirrored(assignment, copy.model, Agreement(num_skipped=1))
                continue
            room[route.name] = left - rows
            self._beside.sent(route)
            task = loop.create_task(self._compare(assignment, copy, given))
            self._tasks.add(task)
            task.add_done_callback(partial(self._done, num_bytes))

    def _done(self, num_bytes: int, task: asyncio.Task[None]) -> None:
        self._num_bytes -= num_bytes
        self._tasks.discard(task)

    async def _compare(
        self, assignment: Assignment, copy: InferenceRequest, given: tuple[Tensor, ...]
    ) -> None:
        try:
            found = await self._ask(copy)
            if sum(tensor.num_bytes for tensor in given) > COMPARED_IN_LOOP_BYTES:
                agreement = await asyncio.to_thread(compare, given, found)
            else:
                agreement = compare(given, found)
        except SquadronError:
            agreement = Agreement(num_failed=1)
        self._door.experiments.mirrored(assignment, copy.model, agreement)

    async def _ask(self, copy: InferenceRequest) -> tuple[Tensor, ...]:
        route = self._door.route(copy.model)
        assert isinstance(route, VariantRoute)  # the configuration allows no other
        ends_s = asyncio.get_running_loop().time() + self._door.timeout_s(copy)
        way = self._door.ask_stream if route.facts.is_decoupled else self._door.ask_variant
        work = way(route, copy, ends_s)
        if self._door.follows is not None:
            return await self._door.follows.member(copy, work, "mirror")
        return await work
