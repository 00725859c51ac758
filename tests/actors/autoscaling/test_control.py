"""A front door's own counts, through the reports, to a number of replicas; no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client.values
import pytest

from actors.autoscaling.control import AutoscalingControl
from actors.autoscaling.door import LoadWatch
from actors.autoscaling.setup import AutoscalingSetup, autoscaling_of, autoscaling_setup
from actors.front_door import FrontDoor
from cluster.config.scaling.autoscaling import AutoscalingBudget
from cluster.config.server import ServerConfig
from cluster.config.squadron import SquadronConfig
from cluster.control.autoscaling.gather import DeploymentReport, DoorLoad, DoorReport
from cluster.control.autoscaling.look import decide_again, replay
from cluster.errors import Overloaded, SquadronError
from cluster.observability.metrics import aggregate, make_metrics
from cluster.protocols.envelope import Call, Reply
from cluster.requests import InferenceRequest
from cluster.routing.table import RoutingTable, build_table
from cluster.tensors import tensor
from tests.cluster.routing.test_table import CARD, facts


@pytest.fixture(autouse=True)
def _own_metrics() -> Iterator[None]:
    before = prometheus_client.values.ValueClass
    yield
    prometheus_client.values.ValueClass = before


SCALED = {
    "card": CARD,
    "autoscaling": {"max_replicas": 9, "slo_ms": 500},
    "batching": {"mode": "off", "max_batch_size": 4},
}


def configured(generation: int = 1, **more: Any) -> tuple[RoutingTable, AutoscalingSetup]:
    steps = [{"model": "a", "outputs": {"y": "y"}}]
    config = SquadronConfig.model_validate(
        {
            "variants": {"a": SCALED, "b": {"card": CARD}, **more},
            "experiments": {"x": {"split": {"a": 1}}},
            "ensembles": {
                "e": {"inputs": ["x"], "outputs": ["y"], "steps": steps},
                "outer": {
                    "inputs": ["x"],
                    "outputs": ["y"],
                    "steps": [{"model": "e", "outputs": {"y": "y"}}],
                },
            },
        }
    )
    table = build_table(config, {name: facts() for name in config.variants})
    budget = autoscaling_of(config)
    assert budget is not None
    return table, autoscaling_setup(table, budget, generation)


def test_a_configuration_without_autoscaling_has_no_setup() -> None:
    config = SquadronConfig.model_validate({"variants": {"a": {"card": CARD}}})

    assert autoscaling_of(config) is None


async def test_a_door_reports_what_came_since_it_was_last_asked(tmp_path: Path) -> None:
    class Echo:
        async def send(self, calls: list[Call], *_: object) -> list[Reply]:
            y = tensor("y", np.zeros((1, 4), np.float32))
            return [Reply(call_id=call.call_id, outputs=(y,)) for call in calls]

    table, _ = configured()
    door = FrontDoor(
        ServerConfig(),
        table,
        make_transport=lambda route: Echo(),  # type: ignore[arg-type,return-value]
        metrics=make_metrics(tmp_path / "metrics"),
    )
    watch = LoadWatch(door, AutoscalingBudget(), 1)
    x = tensor("x", np.zeros((1, 4), np.float32))

    for model in ("a", "a", "b", "e"):
        await door.infer(InferenceRequest(model=model, inputs=(x,)))
    door.write_counts()
    first, second = watch.take(), watch.take()
    await door.close()

    # The ensemble's request was answered by `a` too.
    assert first.variants == {"a": DoorLoad(num_arrived=3, num_answered=3, num_in_time=3)}
    assert first.ensembles == {"e": 1}
    assert second == DoorReport(variants={"a": DoorLoad()}, ensembles={})


class Waits:
    """Answers nobody until it is let go."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()

    async def send(self, calls: list[Call], *_: object) -> list[Reply]:
        await self.is_open.wait()
        y = tensor("y", np.zeros((1, 4), np.float32))
        return [Reply(call_id=call.call_id, outputs=(y,)) for call in calls]


class Fails:
    async def send(self, calls: list[Call], *_: object) -> list[Reply]:
        error = Overloaded("too many wait")
        return [Reply(call_id=call.call_id, error=error) for call in calls]


def watched(tmp_path: Path, transport: object, **more: Any) -> tuple[FrontDoor, LoadWatch]:
    table, _ = configured(**more)
    door = FrontDoor(
        ServerConfig(),
        table,
        make_transport=lambda route: transport,  # type: ignore[arg-type,return-value]
        metrics=make_metrics(tmp_path / "metrics"),
    )
    return door, LoadWatch(door, AutoscalingBudget(), 1)


def asks(model: str, **more: Any) -> InferenceRequest:
    x = tensor("x", np.zeros((1, 4), np.float32))
    return InferenceRequest(model=model, inputs=(x,), **more)


async def test_an_ensembles_requests_are_counted_when_they_come_and_the_inner_ones_not(
    tmp_path: Path,
) -> None:
    transport = Waits()
    door, watch = watched(tmp_path, transport)

    running = [asyncio.create_task(door.infer(asks(model))) for model in ("e", "e", "outer")]
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    first = watch.take()
    transport.is_open.set()
    await asyncio.gather(*running)
    door.write_counts()
    second = watch.take()
    await door.close()

    assert first.ensembles == {"e": 2, "outer": 1}
    assert first.variants["a"].num_answered == 0
    assert second.ensembles == {}
    assert second.variants["a"].num_answered == 3


@pytest.mark.parametrize("model", ["a", "e", "x"])
async def test_a_request_that_found_no_room_has_missed_its_objective(
    tmp_path: Path, model: str
) -> None:
    door, watch = watched(tmp_path, Fails())

    for _ in range(3):
        with pytest.raises(SquadronError):
            await door.infer(asks(model))
    door.write_counts()
    found = watch.take().variants["a"]
    await door.close()

    assert (found.num_answered, found.num_in_time) == (3, 0)


async def test_a_request_on_the_short_way_that_ran_out_of_time_has_missed_its_objective(
    tmp_path: Path,
) -> None:
    door, watch = watched(tmp_path, Fails())
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    door.begin(asks("a"), 1, done.set_result)
    outcome = await done
    found = watch.take().variants["a"]
    await door.close()

    assert isinstance(outcome, Overloaded)
    assert (found.num_answered, found.num_in_time) == (1, 0)


async def test_what_the_caller_did_wrong_is_no_miss(tmp_path: Path) -> None:
    door, watch = watched(tmp_path, Fails())

    with pytest.raises(SquadronError):
        await door.infer(InferenceRequest(model="a", inputs=()))
    found = watch.take().variants["a"]
    await door.close()

    assert found == DoorLoad()


async def test_what_is_told_becomes_a_number_a_reason_and_a_metric(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="squadron.autoscaling")
    now_s = 0.0
    control = AutoscalingControl(
        make_metrics(tmp_path / "metrics").autoscaling, clock=lambda: now_s
    )
    _, setup = configured()
    assert control.exchange({}) == {}
    served = 0.0
    num = 1
    for second in range(20):
        now_s = float(second)
        served += 30
        report = DeploymentReport(
            num_running=num,
            num_target=num,
            busy_s={"r": served * 0.1},
            num_served={"r": served},
        )
        control.report(
            "door", setup, DoorReport(variants={"a": DoorLoad(num_arrived=30)}, ensembles={})
        )
        num = control.exchange({"a": report}).get("a", num)
        control.decide()
    await asyncio.sleep(0)

    target = control.exchange({})["a"]
    latest, *changes = control.decisions()
    assert target > 3
    assert (latest["variant"], latest["num_replicas"]) == ("a", target)
    assert "30.0 requests/s expected" in str(latest["reason"])
    assert all(change["is_change"] for change in changes)
    assert [each["is_latest"] for each in (latest, *changes)] == [True] + [False] * len(changes)
    looks = [
        replay(r.getMessage().removeprefix("look ")) for r in caplog.records if "look " in r.msg
    ]
    assert [look.decisions[0].num_replicas for look in looks] == [
        change["num_replicas"] for change in reversed(changes)
    ]
    assert looks[-1].load.variants["a"].num_arrived == 30
    assert [decide_again(look) for look in looks] == [look.decisions for look in looks]
    text = aggregate(tmp_path / "metrics").decode()
    assert f'squadron_autoscaling_target_replicas{{variant="a"}} {float(target)}' in text


def test_a_season_outlives_the_autoscaler(tmp_path: Path) -> None:
    """In Unix time, since each process counts its seconds from elsewhere."""
    scaled = {**SCALED, "autoscaling": {**SCALED["autoscaling"], "season_s": 960}}
    _, setup = configured(a=scaled)
    wall_s = 9600.0

    def made(began_s: float) -> AutoscalingControl:
        return AutoscalingControl(
            make_metrics(tmp_path / "metrics").autoscaling,
            clock=lambda: wall_s - began_s,
            wall=lambda: wall_s,
        )

    first = made(began_s=9000.0)
    assert first.seasons() == ""
    for _ in range(200):
        wall_s += 1
        load = DoorReport(variants={"a": DoorLoad(num_arrived=30)}, ensembles={})
        first.report("door", setup, load)
        first.exchange(
            {"a": DeploymentReport(num_running=1, num_target=1, busy_s={}, num_served={})}
        )
        first.decide()
    kept = first.seasons()
    second, third = made(began_s=9790.0), made(began_s=9700.0)
    second.remember(kept)
    assert second.seasons() == kept  # before a door has told what is served
    for each in (second, third):
        each.report("door", setup, DoorReport(variants={}, ensembles={}))
    third.remember(kept)
    third.remember("{not json")

    assert '"variant a"' in kept
    assert second.seasons() == third.seasons() == kept


def test_an_older_configuration_changes_nothing(tmp_path: Path) -> None:
    control = AutoscalingControl(make_metrics(tmp_path / "metrics").autoscaling)
    empty = DoorReport(variants={}, ensembles={})

    control.report("new", configured(generation=5)[1], empty)
    kept = configured(generation=3, c=SCALED)[1]
    control.report("old", kept, empty)
    assert control._fleet is not None
    assert set(control._fleet._variants) == {"a"}
    control.report("newer", replace(kept, generation=6), empty)
    assert set(control._fleet._variants) == {"a", "c"}


async def test_a_door_tells_of_models_that_were_loaded_after_its_start(tmp_path: Path) -> None:
    before, _ = configured()
    after, _ = configured(c=SCALED)
    door = FrontDoor(
        ServerConfig(),
        before,
        make_transport=lambda route: None,  # type: ignore[arg-type,return-value]
        metrics=make_metrics(tmp_path / "metrics"),
    )
    watch = LoadWatch(door, AutoscalingBudget(), generation=7)
    first = watch.setup

    door.adopt(replace(after, version=9))
    second = watch.setup
    await door.close()

    assert (set(first.variants), first.generation) == ({"a"}, 7)
    assert (set(second.variants), second.generation) == ({"a", "c"}, 9)
    assert set(watch.take().variants) == {"a", "c"}
