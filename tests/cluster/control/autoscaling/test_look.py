"""A logged line alone is enough to decide it again."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from pydantic import ValidationError

from cluster.config.scaling.autoscaling import AutoscalingBudget, AutoscalingConfig
from cluster.control.autoscaling.fleet import Fleet, FleetLoad, Scaled
from cluster.control.autoscaling.load import Scaling, VariantLoad
from cluster.control.autoscaling.look import Look, decide_again, record, replay


def fleet() -> Fleet:
    """Everything that a decision may come of: a season, batches, an ensemble, caps."""
    variants = {
        "a": Scaled(
            config=AutoscalingConfig(
                max_replicas=12, downscale_delay_s=7, season_s=60, upscale_delay_s=2, slo_ms=300
            )
        ),
        "b": Scaled(
            config=AutoscalingConfig(
                min_replicas=0, max_replicas=6, downscale_delay_s=5, min_step=2, startup_s=3
            ),
            memory_bytes=100,
        ),
        "c": Scaled(config=AutoscalingConfig(min_replicas=0, max_replicas=3), assumed_bytes=50),
    }
    budget = AutoscalingBudget(max_cost=14, max_memory_bytes=1500, max_starting=3)
    return Fleet(variants, calls={"e": {"a": 1.0, "b": 0.5}}, budget=budget, phase_s=12345.6)


def looks(made: Fleet, seed: int, count: int = 200) -> list[Look]:
    """What came of `count` seconds of a load that rises, falls, bursts and stops."""
    chance = random.Random(seed)
    targets, running = {"a": 1, "b": 0, "c": 1}, {"a": 1, "b": 0, "c": 1}
    found = []
    for second in range(count):
        at_s = 1000.0 + second + chance.random() / 10
        high = chance.choice((0, 0, 3, 60)) if second % 20 == 0 else None
        rate = high if high is not None else found[-1].load.variants["a"].num_arrived
        variants = {}
        for index, name in enumerate("abc"):
            arrived = max(0, round(chance.gauss(rate / (index + 1), 2))) if rate else 0
            served = min(arrived, 10 * running[name])
            variants[name] = VariantLoad(
                at_s=at_s,
                window_s=0.9 + chance.random() / 5,
                num_arrived=arrived,
                num_waiting=arrived - served,
                num_running=running[name],
                num_target=targets[name],
                num_answered=served,
                num_in_time=chance.randint(0, served),
                busy_s=served * 0.1 * chance.random() if served else None,
                num_served=served,
                num_rows=2 * served,
                batch_s={1: 0.1, 4: 0.15} if name == "a" else {},
                memory_bytes=300 * (name == "c"),
            )
        load = FleetLoad(
            at_s=at_s, window_s=1.0, variants=variants, ensembles={"e": rate}, num_cores=2
        )
        state = made.state()
        decisions = made.decide(load)
        found.append(Look(state=state, load=load, decisions=decisions))
        if second % 3 == 0:  # a start takes a while
            running = dict(targets)
        targets = {each.variant: each.num_replicas for each in decisions}
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_look_is_decided_again_from_its_line_alone(seed: int) -> None:
    seen = looks(fleet(), seed)

    changes = [look for look in seen if any(each.is_change for each in look.decisions)]
    assert len(changes) > 10
    for look in seen:
        line = record(look)
        assert "\n" not in line
        assert decide_again(replay(line)) == look.decisions


def test_reasons_of_every_kind_were_among_them() -> None:
    """Or the test above would show less than it says."""
    reasons = " ".join(
        each.reason
        for seed in (1, 2, 3)
        for look in looks(fleet(), seed)
        for each in look.decisions
    )

    for text in (
        "requests wait",
        "were in time",
        "its ensembles",
        "the season",
        "a batch of",
        "stay for downscale_delay_s",
        "upscale_delay_s",
        "below min_step",
        "at a time",
        "autoscaling.max_cost",
        "nobody has asked",
    ):
        assert text in reasons, text


def test_a_line_that_does_not_say_what_was_known_before_is_no_look() -> None:
    look = looks(fleet(), seed=1, count=30)[-1]
    _, _, load = record(look).partition('"load":')

    with pytest.raises(ValidationError, match="state"):
        replay('{"load":' + load)


def test_a_decision_that_was_another_is_found() -> None:
    look = looks(fleet(), seed=1, count=30)[-1]
    first: Scaling = look.decisions[0]
    changed = replace(look, decisions=(replace(first, num_replicas=99), *look.decisions[1:]))

    assert decide_again(replay(record(changed))) != changed.decisions
