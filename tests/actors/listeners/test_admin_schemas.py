"""What the admin API answers is what `/openapi.json` says, key for key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from actors.autoscaling.control import AutoscalingControl
from cluster.config.experiment import ExperimentConfig
from cluster.control.autoscaling.gather import DeploymentReport, DoorLoad, DoorReport
from cluster.experiments.counts import Agreement, ArmCounts
from cluster.experiments.state import begin
from cluster.experiments.view import experiment_view
from cluster.observability.metrics import make_metrics
from cluster.protocols.extensions.admin_schemas import ADMIN_SCHEMAS
from tests.actors.autoscaling.test_control import _own_metrics, configured  # noqa: F401
from tests.actors.listeners.doors import make_door
from tests.cluster.experiments.making import arm


def unsaid(schema: Any, value: Any, place: str = "") -> list[str]:
    """Keys that the document does not name, and those that it promises and that are not there."""
    if isinstance(value, list):
        return [each for item in value for each in unsaid(schema["items"], item, f"{place}[]")]
    if not isinstance(value, dict):
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        found = {str: "string", bool: "boolean", int: "integer", float: "number"}.get(
            type(value), "null"
        )
        is_right = found in kinds or (found == "integer" and "number" in kinds)
        return [] if is_right else [f"{place} is {value!r}, not {kinds}"]
    if "properties" not in schema:
        more = schema["additionalProperties"]
        return [
            each for key, item in value.items() for each in unsaid(more, item, f"{place}.{key}")
        ]
    wrong = [f"{place}.{key} is missing" for key in schema["required"] if key not in value]
    for key, item in value.items():
        known = schema["properties"].get(key)
        wrong += [f"{place}.{key}"] if known is None else unsaid(known, item, f"{place}.{key}")
    return wrong


@pytest.mark.parametrize("sections", [{}, {"canary": {}}, {"bandit": {}}])
def test_an_experiment(sections: dict[str, Any]) -> None:
    config = ExperimentConfig.model_validate(
        {"split": {"a": 1, "b": 1}, "mirror": {"variants": ["c"]}, **sections}
    )
    state = begin(config, "digest", 100.0)
    mirrored = ArmCounts(agreement=Agreement(count=4, same_top1=3, num_ranked=4))
    counted = {"a": arm(1, accuracy=0.8), "b": arm(2, accuracy=0.7), "c": mirrored}
    view = experiment_view("e", config, state.counted(counted, state.weights), 200.0)

    assert unsaid(ADMIN_SCHEMAS["Experiment"], orjson.loads(orjson.dumps(view))) == []


async def test_models_of_every_kind_and_how_their_traffic_splits(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    door.front.adopt(replace(configured()[0], version=9))  # an experiment and ensembles

    for path, schema in (
        ("models", "Models"),
        ("variants", "Variants"),
        ("ensembles", "Ensembles"),
        ("traffic", "Traffic"),
    ):
        found = await door.json("GET", f"/admin/v1/{path}")
        assert found
        assert unsaid(ADMIN_SCHEMAS[schema], found, path) == []


def test_decisions_of_the_autoscaler(tmp_path: Path) -> None:
    seconds = iter(range(100))
    control = AutoscalingControl(
        make_metrics(tmp_path / "metrics").autoscaling, clock=lambda: float(next(seconds))
    )
    for _ in range(3):
        load = DoorReport(variants={"a": DoorLoad(num_arrived=30)}, ensembles={})
        control.report("door", configured()[1], load)
        seen = DeploymentReport(num_running=1, num_target=1, busy_s={}, num_served={})
        control.exchange({"a": seen})
        control.decide()

    assert control.decisions()
    assert unsaid(ADMIN_SCHEMAS["Decisions"], control.decisions()) == []
