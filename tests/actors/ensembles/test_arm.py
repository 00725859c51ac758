"""An ensemble as the arm of an experiment."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

from actors.front_door import FrontDoor
from cluster.protocols.envelope import Call, Reply
from cluster.routing.table import ExperimentRoute, RoutingTable, arms_of
from cluster.tensors import tensor
from tests.actors.ensembles.test_run import door_of, request, times


class Parts:
    """Three responses to each request."""

    async def stream(self, call: Call) -> AsyncGenerator[Reply, None]:
        for factor in (1, 2, 3):
            y = tensor("y", factor * call.inputs[0].array)
            yield Reply(call_id=call.call_id, outputs=(y,))


def under_an_experiment(door: FrontDoor) -> None:
    route = ExperimentRoute(
        name="x",
        arms=arms_of({"e": 1}),
        sticky_header="x-squadron-user",
        signature=door.table.routes["e"].signature,
        is_of_variants=False,
    )
    door.adopt(RoutingTable(version=2, routes={**door.table.routes, "x": route}))


async def test_one_whose_last_step_streams_does_so_under_an_experiment_as_well(
    tmp_path: Path,
) -> None:
    steps = [{"model": "stream", "outputs": {"y": "end"}}]
    members = {"stream": times(1)}
    async with door_of(
        tmp_path, steps, members, is_decoupled=True, streams=lambda route: Parts()
    ) as door:
        under_an_experiment(door)
        asked = replace(request([[1, 2]]), model="x")
        is_streamed = door.is_streamed(asked)
        parts = [part async for part in door.stream(asked)]
        (tallied,) = door.experiments.collect()

    assert is_streamed
    assert [part.output("end").array.tolist() for part in parts] == [[[1, 2]], [[2, 4]], [[3, 6]]]
    assert {(part.model, part.variant) for part in parts} == {("x", "e")}
    assert {part.parameters["squadron_variant"] for part in parts} == {"e"}
    assert asked.tracking_id
    assert {arm: (counts.drawn, counts.requests) for arm, counts in tallied.arms.items()} == {
        "e": (1, 1)
    }


async def test_any_other_answers_once(tmp_path: Path) -> None:
    steps = [{"model": "a", "outputs": {"y": "end"}}]
    async with door_of(tmp_path, steps, {"a": times(10)}) as door:
        under_an_experiment(door)
        asked = replace(request([[1, 2]]), model="x")
        parts = [part async for part in door.stream(asked)]

    assert [part.output("end").array.tolist() for part in parts] == [[[10, 20]]]
    assert parts[0].variant == "e"


async def test_an_ensemble_heeds_the_sticky_header_of_an_experiment_inside_it(
    tmp_path: Path,
) -> None:
    steps = [{"model": "a", "outputs": {"y": "end"}}]
    async with door_of(tmp_path, steps, {"a": times(10)}) as door:
        inner = ExperimentRoute(
            name="a",
            arms=arms_of({"b": 1}),
            sticky_header="x-account",
            signature=door.table.routes["a"].signature,
        )
        routes = {**door.table.routes, "b": door.table.routes["a"], "a": inner}
        door.adopt(RoutingTable(version=2, routes=routes))
        found = {name: door.sticky_header(name) for name in ("e", "a", "b", "nobody")}

    assert found == {"e": "x-account", "a": "x-account", "b": "", "nobody": ""}
