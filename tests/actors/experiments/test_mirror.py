from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np

from actors.delivery.dispatchers import Arrivals
from actors.experiments.beside import LIVE_S, Beside
from actors.experiments.desk import ExperimentDesk
from actors.experiments.mirror import MAX_BYTES_UNDER_WAY, MAX_UNDER_WAY, Mirror
from cluster.errors import EngineFailed
from cluster.experiments.counts import Agreement
from cluster.requests import InferenceRequest
from cluster.routing.table import RoutingTable, VariantRoute
from cluster.tensors import Tensor, tensor
from tests.actors.experiments.test_desk import route
from tests.cluster.routing.test_table import table as variants

INPUTS = (tensor("x", np.zeros((1, 1), dtype=np.float32)),)
GIVEN = (tensor("y", np.array([[1.0, 2.0]], dtype=np.float32)),)


class Door:
    """The part of a front door that a mirror uses; its one variant answers what it is told to."""

    follows = None

    def __init__(self, share: float = 1.0) -> None:
        found = route(split={"a": 1}, mirror={"variants": ["b"], "share": share})
        shadow = variants().routes["b"]
        assert isinstance(shadow, VariantRoute)
        self.shadow = shadow
        self.table = RoutingTable(version=1, routes={"e": found, "b": shadow})
        self.experiments = ExperimentDesk()
        self.experiments.adopt(self.table)
        self.arrived: dict[str, Arrivals] = {}
        self.asked: list[InferenceRequest] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: EngineFailed | None = None

    def route(self, model: str) -> Any:
        return self.table.routes[model]

    def arrivals(self) -> dict[str, Arrivals]:
        return self.arrived

    def timeout_s(self, request: InferenceRequest) -> float:
        return 1.0

    async def ask_variant(
        self, route: VariantRoute, request: InferenceRequest, deadline_s: float
    ) -> tuple[Tensor, ...]:
        self.asked.append(request)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return GIVEN

    def answered(self) -> InferenceRequest:
        request = InferenceRequest(model="e", inputs=INPUTS)
        self.experiments.choose(self.table.routes["e"], request, lambda: 0.0)  # type: ignore[arg-type]
        return request

    def agreement(self) -> Agreement:
        found = [t.arms["b"].agreement for t in self.experiments.collect() if "b" in t.arms]
        return sum(found, Agreement())


def mirror(door: Door, draw: float = 0.0) -> Mirror:
    return Mirror(cast(Any, door), lambda: draw)


async def settle(door: Door, num_asked: int) -> None:
    """Until so many copies have been sent and answered."""
    while len(door.asked) < num_asked:  # noqa: ASYNC110  (nobody tells; the test's limit ends it)
        await asyncio.sleep(0.01)
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_copy_is_answered_and_compared() -> None:
    door = Door()

    mirror(door).offer(door.answered(), GIVEN)
    await settle(door, 1)

    assert [request.model for request in door.asked] == ["b"]
    found = door.agreement()
    assert (found.count, found.max_abs_difference, found.num_failed) == (1, 0.0, 0)


async def test_a_mirror_that_fails_is_counted_and_nobody_else_knows() -> None:
    door = Door()
    door.error = EngineFailed("broken")

    mirror(door).offer(door.answered(), GIVEN)
    await settle(door, 1)

    assert door.agreement() == Agreement(num_failed=1)


async def test_where_the_mirror_is_busy_copies_are_dropped() -> None:
    door = Door()
    door.gate.clear()
    made = mirror(door)
    for _ in range(MAX_UNDER_WAY + 3):
        made.offer(door.answered(), GIVEN)
    await settle(door, MAX_UNDER_WAY)
    assert len(door.asked) == MAX_UNDER_WAY
    door.gate.set()
    await settle(door, MAX_UNDER_WAY)

    found = door.agreement()

    assert (found.count, found.num_skipped) == (MAX_UNDER_WAY, 3)


async def test_only_the_share_that_was_asked_for_is_copied() -> None:
    door = Door(share=0.25)

    mirror(door, draw=0.3).offer(door.answered(), GIVEN)
    mirror(door, draw=0.2).offer(door.answered(), GIVEN)
    await settle(door, 1)

    assert len(door.asked) == 1


async def test_a_variant_that_callers_ask_too_gets_one_batch_of_copies_at_most() -> None:
    door = Door()
    batch = door.shadow.batching.max_batch_size * max(1, door.shadow.num_replicas)
    door.arrived["b"] = Arrivals(num_submitted=7, rows_waiting=0, rows_under_way=3)

    made = mirror(door)
    for _ in range(batch + 2):
        made.offer(door.answered(), GIVEN)
    await settle(door, batch - 3)

    assert len(door.asked) == batch - 3
    assert door.agreement().num_skipped == 5


async def test_while_callers_wait_no_copy_is_sent() -> None:
    door = Door()
    door.arrived["b"] = Arrivals(num_submitted=90, rows_waiting=40, rows_under_way=40)

    mirror(door).offer(door.answered(), GIVEN)
    await asyncio.sleep(0.15)

    assert door.asked == []
    assert door.agreement() == Agreement(num_skipped=1)


def test_a_variant_that_nobody_else_asks_takes_every_copy() -> None:
    beside, door = Beside(), Door()
    shadow = door.shadow
    for number in range(1, 200):
        beside.sent(shadow)
        busy = Arrivals(num_submitted=number, rows_waiting=50, rows_under_way=100)
        assert beside.room(shadow, busy, 0.1 * number) == float("inf")

    live = Arrivals(num_submitted=200, rows_waiting=50, rows_under_way=100)
    assert beside.room(shadow, live, 30.0) < 0
    assert beside.room(shadow, live, 30.0 + LIVE_S + 1) == float("inf")


def test_copies_that_were_never_submitted_hide_no_callers() -> None:
    beside, shadow = Beside(), Door().shadow
    for _ in range(100):
        beside.sent(shadow)
    assert beside.room(shadow, Arrivals(1, 0, 0), 0.0) == float("inf")

    assert beside.room(shadow, Arrivals(2, 0, 0), 1.0) < float("inf")


async def test_the_answers_to_be_compared_with_count_as_bytes_too() -> None:
    door = Door()
    door.gate.clear()
    half = np.zeros(MAX_BYTES_UNDER_WAY // 2 + 1, dtype=np.uint8)
    made = mirror(door)

    made.offer(door.answered(), (tensor("y", half),))
    made.offer(door.answered(), (tensor("y", half),))
    await settle(door, 1)
    door.gate.set()
    await asyncio.sleep(0.05)

    assert len(door.asked) == 1
    assert door.agreement().num_skipped == 1
