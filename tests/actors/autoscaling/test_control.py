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
            "ensembles": {"e": {"inputs": ["x"], "outputs": ["y"], "steps": steps}},
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

    assert first.variants == {"a": DoorLoad(num_arrived=3, num_answered=2, num_in_time=2)}
    assert first.ensembles == {"e": 1}
    assert second == DoorReport(variants={"a": DoorLoad()}, ensembles={})


async def test_what_is_told_becomes_a_number_a_reason_and_a_metric(tmp_path: Path) -> None:
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
    text = aggregate(tmp_path / "metrics").decode()
    assert f'squadron_autoscaling_target_replicas{{variant="a"}} {float(target)}' in text


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
