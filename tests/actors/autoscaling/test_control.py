"""A front door's own counts, through the reports, to a number of replicas; no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import prometheus_client.values
import pytest

from actors.autoscaling.control import AutoscalingControl
from actors.autoscaling.door import LoadWatch
from actors.autoscaling.setup import AutoscalingSetup, autoscaling_setup
from actors.front_door import FrontDoor
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


def configured(generation: int = 1) -> tuple[RoutingTable, AutoscalingSetup]:
    scaled = {
        "card": CARD,
        "autoscaling": {"max_replicas": 9, "slo_ms": 500},
        "batching": {"mode": "off", "max_batch_size": 4},
    }
    steps = [{"model": "a", "outputs": {"y": "y"}}]
    config = SquadronConfig.model_validate(
        {
            "variants": {"a": scaled, "b": {"card": CARD}},
            "ensembles": {"e": {"inputs": ["x"], "outputs": ["y"], "steps": steps}},
        }
    )
    table = build_table(config, {"a": facts(), "b": facts()})
    setup = autoscaling_setup(config, table, generation)
    assert setup is not None
    return table, setup


def test_a_configuration_without_autoscaling_has_no_setup() -> None:
    config = SquadronConfig.model_validate({"variants": {"a": {"card": CARD}}})

    assert autoscaling_setup(config, build_table(config, {"a": facts()}), 1) is None


async def test_a_door_reports_what_came_since_it_was_last_asked(tmp_path: Path) -> None:
    class Echo:
        async def send(self, calls: list[Call]) -> list[Reply]:
            y = tensor("y", np.zeros((1, 4), np.float32))
            return [Reply(call_id=call.call_id, outputs=(y,)) for call in calls]

    table, setup = configured()
    door = FrontDoor(
        ServerConfig(),
        table,
        make_transport=lambda route: Echo(),  # type: ignore[arg-type,return-value]
        metrics=make_metrics(tmp_path / "metrics"),
    )
    watch = LoadWatch(door, setup)
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
    text = aggregate(tmp_path / "metrics").decode()
    assert f'squadron_autoscaling_target_replicas{{variant="a"}} {float(target)}' in text


def test_an_older_configuration_changes_nothing(tmp_path: Path) -> None:
    control = AutoscalingControl(make_metrics(tmp_path / "metrics").autoscaling)
    empty = DoorReport(variants={}, ensembles={})

    control.report("new", configured(generation=5)[1], empty)
    fleet = control._fleet
    control.report("old", configured(generation=3)[1], empty)
    assert control._fleet is fleet
    control.report("newer", configured(generation=6)[1], empty)
    assert control._fleet is not fleet
