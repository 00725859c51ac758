"""Ensembles through a real front door; members are functions behind a door's transport."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client.values
import pytest

from actors.front_door import FrontDoor
from cluster.config.server import ServerConfig
from cluster.config.squadron import SquadronConfig
from cluster.errors import DeadlineExceeded, EngineFailed, InvalidRequest, SquadronError
from cluster.observability.metrics import aggregate, make_metrics
from cluster.protocols.envelope import Call, Reply
from cluster.requests import InferenceRequest, InferenceResponse, Parameter
from cluster.routing.table import VariantFacts, VariantRoute, build_table
from cluster.tensors import Array, Signature, TensorSpec, tensor

Compute = Callable[[Call], Awaitable[Array]]
CARD = {
    "name": "m",
    "format": "fake",
    "signature": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    },
}
X = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))
Y = TensorSpec(name="y", datatype="FP32", shape=(-1, 2))
ONE = Signature(inputs=(X,), outputs=(Y,))
THREE = Signature(inputs=tuple(replace(X, name=n) for n in "pqr"), outputs=(Y,))


@pytest.fixture(autouse=True)
def _own_metrics() -> AsyncIterator[None]:
    before = prometheus_client.values.ValueClass
    yield
    prometheus_client.values.ValueClass = before


class Member:
    """Answers with what its function makes of a call, and counts the calls."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self.calls: list[Call] = []
        self.num_cancelled = 0

    def send(self, calls: list[Call], *_: object) -> Awaitable[list[Reply]]:
        return self._answer(calls)

    async def _answer(self, calls: list[Call]) -> list[Reply]:
        replies = []
        for call in calls:
            self.calls.append(call)
            try:
                y = await self._compute(call)
                replies.append(Reply(call_id=call.call_id, outputs=(tensor("y", y),)))
            except SquadronError as error:
                replies.append(Reply(call_id=call.call_id, error=error))
            except asyncio.CancelledError:
                self.num_cancelled += 1
                raise
        return replies


async def settled() -> None:
    """What was cancelled has ended: it takes some turns of the loop, and no time."""
    for _ in range(100):
        await asyncio.sleep(0)


def times(factor: float) -> Member:
    async def compute(call: Call) -> Array:
        return (factor * call.inputs[0].array).astype(np.float32)

    return Member(compute)


def failing(error: SquadronError) -> Member:
    async def compute(call: Call) -> Array:
        raise error

    return Member(compute)


def hanging() -> Member:
    async def compute(call: Call) -> Array:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    return Member(compute)


@asynccontextmanager
async def door_of(
    folder: Path,
    steps: list[dict[str, Any]],
    members: dict[str, Member],
    *,
    outputs: str = "end",
    signatures: dict[str, Signature] | None = None,
    is_decoupled: bool = False,
    streams: Any = None,
    draw: Callable[[], float] = lambda: 0.5,
) -> AsyncIterator[FrontDoor]:
    section = {"inputs": ["x"], "outputs": [outputs], "steps": steps}
    config = SquadronConfig.model_validate(
        {"variants": {name: {"card": CARD} for name in members}, "ensembles": {"e": section}}
    )
    facts = {
        name: VariantFacts(
            version="1",
            platform="",
            backend="",
            signature=(signatures or {}).get(name, ONE),
            is_batched=True,
            is_decoupled=is_decoupled and name == "stream",
        )
        for name in members
    }
    table = build_table(config, facts)
    states = {n: ("READY", "") for n, r in table.routes.items() if isinstance(r, VariantRoute)}
    door = FrontDoor(
        ServerConfig(),
        table.with_states(states, version=1),  # type: ignore[arg-type]
        make_transport=lambda route: members[route.name],  # type: ignore[arg-type,return-value]
        metrics=make_metrics(folder / "metrics"),
        draw=draw,
        make_streams=streams,
    )
    yield door
    await door.close()


def request(rows: list[list[float]], key: str = "", **parameters: Parameter) -> InferenceRequest:
    x = tensor("x", np.array(rows, np.float32))
    return InferenceRequest(model="e", inputs=(x,), parameters=parameters, affinity_key=key)


async def ask(door: FrontDoor, *rows: list[float], **parameters: Parameter) -> list[list[float]]:
    answer: InferenceResponse = await door.infer(request(list(rows) or [[1, 2]], **parameters))
    found: list[list[float]] = answer.outputs[0].array.tolist()
    return found


def parallel(**combine: Any) -> list[dict[str, Any]]:
    members: list[dict[str, Any]] = [
        {"model": name, "outputs": {"y": name}} for name in ("a", "b", "c")
    ]
    step = {"combine": "mean", "inputs": ["a", "b", "c"], "output": "end", **combine}
    return [*members, step]


async def test_the_table_in_use_is_told_by_when_it_was_made(tmp_path: Path) -> None:
    async with door_of(tmp_path, parallel(), {name: times(1) for name in "abc"}) as door:
        door.adopt(replace(door.table, version=1_795_000_000_500_000_000))
    text = aggregate(tmp_path / "metrics").decode()
    assert "squadron_routing_table_timestamp_seconds 1.7950000005e+09" in text


async def test_members_run_at_the_same_time(tmp_path: Path) -> None:
    meeting = asyncio.Barrier(3)

    async def compute(call: Call) -> Array:
        await meeting.wait()
        return call.inputs[0].array

    members = {name: Member(compute) for name in "abc"}
    async with door_of(tmp_path, parallel(), members) as door:
        assert await ask(door) == [[1, 2]]


async def test_a_quorum_answers_without_the_member_that_failed(tmp_path: Path) -> None:
    members = {"a": times(1), "b": failing(EngineFailed("broken")), "c": times(3)}
    async with door_of(tmp_path, parallel(quorum=2), members) as door:
        assert await ask(door) == [[2, 4]]

    text = aggregate(tmp_path / "metrics").decode()
    assert 'events_total{event="answered without a member",model="e"} 1.0' in text
    assert 'events_total{event="member failed",model="e"} 1.0' in text


async def test_without_a_quorum_the_members_error_is_the_answer_and_the_others_are_cancelled(
    tmp_path: Path,
) -> None:
    members = {"a": times(1), "b": failing(EngineFailed("broken")), "c": hanging()}
    async with door_of(tmp_path, parallel(), members) as door:
        with pytest.raises(EngineFailed, match="broken"):
            await ask(door)
        await settled()

    assert members["c"].num_cancelled == 1


async def test_a_request_that_is_wrong_is_refused_also_with_a_quorum(tmp_path: Path) -> None:
    members = {"a": times(1), "b": failing(InvalidRequest("no photo")), "c": times(1)}
    async with door_of(tmp_path, parallel(quorum=2), members) as door:
        with pytest.raises(InvalidRequest, match="no photo"):
            await ask(door)


async def test_a_member_that_takes_longer_than_its_timeout_counts_as_failed(tmp_path: Path) -> None:
    steps = parallel(quorum=2)
    steps[1]["timeout_ms"] = 20
    members = {"a": times(1), "b": hanging(), "c": times(3)}
    async with door_of(tmp_path, steps, members) as door:
        assert await ask(door) == [[2, 4]]

    assert members["b"].num_cancelled == len(members["b"].calls)


async def test_a_quorum_waits_for_the_rest_only_as_long_as_it_is_told(tmp_path: Path) -> None:
    members = {"a": times(1), "b": hanging(), "c": times(3)}
    async with door_of(tmp_path, parallel(quorum=2, wait_ms=10), members) as door:
        assert await ask(door) == [[2, 4]]
        await settled()

    assert members["b"].num_cancelled == len(members["b"].calls)


async def test_a_quorum_answers_in_time_though_a_member_hangs_that_has_no_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.ensembles.run.LAST_SHARE", 0.999)  # of 30 s: a busy machine's time
    members = {"a": times(1), "b": hanging(), "c": times(3)}
    async with door_of(tmp_path, parallel(quorum=2), members) as door:
        assert await ask(door, timeout=30_000_000) == [[2, 4]]
        await settled()

    assert members["b"].num_cancelled == len(members["b"].calls)


async def test_the_callers_deadline_holds_for_the_whole_graph(tmp_path: Path) -> None:
    steps = [
        {"model": "a", "outputs": {"y": "half"}},
        {"model": "b", "inputs": {"x": "half"}, "outputs": {"y": "end"}, "timeout_ms": 60_000},
    ]
    members = {"a": times(1), "b": hanging()}
    async with door_of(tmp_path, steps, members) as door:
        with pytest.raises(DeadlineExceeded):
            await ask(door, timeout=30_000)

    assert members["b"].calls[0].left_s < 0.03


async def test_a_fallback_answers_for_a_member_that_failed(tmp_path: Path) -> None:
    steps = [{"model": "a", "fallback": "b", "outputs": {"y": "end"}}]
    members = {"a": failing(EngineFailed("broken")), "b": times(7)}
    async with door_of(tmp_path, steps, members) as door:
        assert await ask(door) == [[7, 14]]


async def test_a_slow_member_is_asked_a_second_time_and_the_first_answer_counts(
    tmp_path: Path,
) -> None:
    asked = Counter[str]()

    async def compute(call: Call) -> Array:
        asked["a"] += 1
        if asked["a"] == 1:
            await asyncio.get_running_loop().create_future()
        return call.inputs[0].array

    member = Member(compute)
    steps = [{"model": "a", "hedge_after_ms": 10, "outputs": {"y": "end"}}]
    async with door_of(tmp_path, steps, {"a": member}) as door:
        assert await ask(door) == [[1, 2]]
        await settled()

    assert (asked["a"], member.num_cancelled) == (2, 1)


async def test_both_askings_failing_is_the_members_failure(tmp_path: Path) -> None:
    async def compute(call: Call) -> Array:
        await asyncio.sleep(0.02)
        raise EngineFailed("broken")

    steps = [{"model": "a", "hedge_after_ms": 5, "outputs": {"y": "end"}}]
    async with door_of(tmp_path, steps, {"a": Member(compute)}) as door:
        with pytest.raises(EngineFailed, match="broken"):
            await ask(door)


LOOK = Signature(inputs=(X,), outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1,)),))
BY_VALUE: list[dict[str, Any]] = [
    {"model": "look", "outputs": {"y": "kind"}},
    {
        "switch": {"value": "kind"},
        "cases": [{"at_least": 10, "model": "a"}, {"below": 0, "model": "b"}],
        "default": "c",
        "outputs": {"y": "end"},
    },
]


def first_column() -> Member:
    async def compute(call: Call) -> Array:
        return call.inputs[0].array[:, 0]

    return Member(compute)


async def test_a_switch_by_value_sends_each_row_its_way_and_keeps_their_order(
    tmp_path: Path,
) -> None:
    members = {"look": first_column(), "a": times(2), "b": times(3), "c": times(5)}
    async with door_of(tmp_path, BY_VALUE, members, signatures={"look": LOOK}) as door:
        rows = [[1.0, 1.0], [10.0, 1.0], [-1.0, 1.0], [20.0, 1.0]]
        assert await ask(door, *rows) == [[5, 5], [20, 2], [-3, 3], [40, 2]]
        assert await ask(door, [3.0, 0.0]) == [[15, 0]]

    assert {name: len(members[name].calls) for name in "abc"} == {"a": 1, "b": 1, "c": 2}


async def test_when_a_switch_lacks_some_rows_nobody_goes_on_with_the_others(tmp_path: Path) -> None:
    broken = failing(EngineFailed("broken"))
    members = {"look": first_column(), "a": broken, "b": times(3), "c": hanging()}
    async with door_of(tmp_path, BY_VALUE, members, signatures={"look": LOOK}) as door:
        with pytest.raises(EngineFailed, match="broken"):
            await ask(door, [1.0, 1.0], [10.0, 1.0])
        await settled()

    assert members["c"].num_cancelled == len(members["c"].calls) == 1


async def test_a_switch_by_parameter_calls_one_model(tmp_path: Path) -> None:
    steps = [
        {
            "switch": {"parameter": "tier"},
            "cases": [{"equals": "gold", "model": "a"}],
            "default": "b",
            "outputs": {"y": "end"},
        }
    ]
    async with door_of(tmp_path, steps, {"a": times(2), "b": times(3)}) as door:
        assert await ask(door, tier="gold") == [[2, 4]]
        assert await ask(door, tier="tin") == [[3, 6]]


async def test_a_split_draws_one_of_its_models(tmp_path: Path) -> None:
    draws = iter([0.1, 0.9])
    steps = [{"split": {"a": 1, "b": 1}, "outputs": {"y": "end"}}]
    members = {"a": times(2), "b": times(3)}
    async with door_of(tmp_path, steps, members, draw=lambda: next(draws)) as door:
        assert await ask(door) == [[2, 4]]
        assert await ask(door) == [[3, 6]]


async def test_a_model_that_combines_gets_nan_for_the_member_that_failed(tmp_path: Path) -> None:
    seen: list[Array] = []

    async def total(call: Call) -> Array:
        assert [given.name for given in call.inputs] == ["p", "q", "r"]
        seen.extend(given.array for given in call.inputs)
        return np.nansum([given.array for given in call.inputs], axis=0).astype(np.float32)

    members = {
        "a": times(1),
        "b": failing(EngineFailed("broken")),
        "c": times(3),
        "sum": Member(total),
    }
    steps = parallel(combine="code", model="sum", quorum=2)
    async with door_of(tmp_path, steps, members, signatures={"sum": THREE}) as door:
        assert await ask(door) == [[4, 8]]

    assert seen[1].shape == (1, 2)
    assert all(math.isnan(value) for value in seen[1].ravel())


async def test_an_ensemble_whose_last_step_streams_gives_its_parts(tmp_path: Path) -> None:
    class Parts:
        async def stream(self, call: Call) -> AsyncGenerator[Reply, None]:
            for factor in (1, 2, 3):
                y = tensor("y", factor * call.inputs[0].array)
                yield Reply(call_id=call.call_id, outputs=(y,))

    steps = [
        {"model": "a", "outputs": {"y": "half"}},
        {"model": "stream", "inputs": {"x": "half"}, "outputs": {"y": "end"}},
    ]
    members = {"a": times(10), "stream": times(1)}
    async with door_of(
        tmp_path, steps, members, is_decoupled=True, streams=lambda route: Parts()
    ) as door:
        parts, under_way = [], []
        async for part in door.stream(request([[1, 2]])):
            parts.append(part)
            under_way.append(door.arrivals()["stream"].rows_under_way)
        with pytest.raises(SquadronError, match="decoupled"):
            await ask(door)
        arrivals = door.arrivals()["stream"]

    assert (under_way, arrivals) == ([1, 1, 1], (1, 0, 0))
    assert [part.output("end").array.tolist() for part in parts] == [
        [[10, 20]],
        [[20, 40]],
        [[30, 60]],
    ]
    assert {part.variant for part in parts} == {"e"}
