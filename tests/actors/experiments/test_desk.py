from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors.experiments.desk import ExperimentDesk
from cluster.config.experiment import ExperimentConfig
from cluster.experiments.asked import pack
from cluster.experiments.counts import ArmCounts
from cluster.requests import InferenceRequest
from cluster.routing.table import ExperimentRoute, RoutingTable, VariantRoute, arms_of
from cluster.tensors import Signature, tensor
from tests.cluster.routing.test_table import table as variants

INPUTS = (tensor("x", np.zeros((1, 1), dtype=np.float32)),)


def route(**config: Any) -> ExperimentRoute:
    asked = ExperimentConfig.model_validate({"split": {"a": 90, "b": 10}, **config})
    return ExperimentRoute(
        name="e",
        arms=arms_of(asked.first_weights()),
        sticky_header=asked.sticky_header,
        signature=Signature(inputs=(), outputs=()),
        config=asked,
    )


def table(found: ExperimentRoute) -> RoutingTable:
    return RoutingTable(version=1, routes={"e": found})


def request(user: str = "", request_id: str = "") -> InferenceRequest:
    return InferenceRequest(model="e", inputs=INPUTS, affinity_key=user, tracking_id=request_id)


def desk(found: ExperimentRoute) -> ExperimentDesk:
    made = ExperimentDesk()
    made.adopt(table(found))
    return made


def served(
    made: ExperimentDesk, found: ExperimentRoute, asked: InferenceRequest, draw: float = 0.0
) -> str:
    arm = made.choose(found, asked, lambda: draw)
    made.began(asked)
    made.ended(asked, "success", 0.01)
    return arm


def collected(made: ExperimentDesk) -> dict[str, ArmCounts]:
    (tallied,) = made.collect()
    return dict(tallied.arms)


def test_a_hundred_thousand_requests_split_as_the_weights_say() -> None:
    found = route()
    made = desk(found)
    draw = random.Random(11).random

    seen = Counter(made.choose(found, request(), draw) for _ in range(100_000))

    # 99.9 % of a binomial: 3.29 standard deviations.
    assert abs(seen["b"] - 10_000) <= 3.29 * math.sqrt(100_000 * 0.1 * 0.9)
    assert seen["a"] + seen["b"] == 100_000


def test_a_hundred_thousand_users_split_as_the_weights_say() -> None:
    found = route()
    made = desk(found)

    seen = Counter(made.choose(found, request(user=f"u{i}"), lambda: 0.0) for i in range(100_000))

    assert abs(seen["b"] - 10_000) <= 3.29 * math.sqrt(100_000 * 0.1 * 0.9)


def test_users_stay_where_they_are_and_a_change_of_weights_moves_only_its_share() -> None:
    before, after = route(), replace(route(), arms=arms_of({"a": 70, "b": 30}))
    users = [f"user {i}" for i in range(20_000)]
    made = desk(before)
    first = {user: made.choose(before, request(user=user), lambda: 0.0) for user in users}
    again = {user: made.choose(before, request(user=user), lambda: 0.9) for user in users}

    made.adopt(table(after))
    then = {user: made.choose(after, request(user=user), lambda: 0.0) for user in users}

    assert first == again
    moved = [user for user in users if first[user] != then[user]]
    assert all(first[user] == "a" for user in moved)
    assert abs(len(moved) / len(users) - 0.2) <= 3.29 * math.sqrt(0.2 * 0.8 / len(users))


def test_a_request_that_is_asked_for_twice_meets_the_same_arm_and_counts_once() -> None:
    found = route(split={"a": 1, "b": 1})
    made = desk(found)
    asked = request()

    assert made.choose(found, asked, lambda: 0.1) == "a"
    assert made.choose(found, asked, lambda: 0.9) == "a"
    made.began(asked)
    made.ended(asked, "success", 0.01)

    assert collected(made)["a"].drawn == 1


def test_answers_errors_and_the_callers_own_mistakes_are_told_apart() -> None:
    found = route()
    made = desk(found)
    for outcome in (
        "success",
        "engine_failed",
        "deadline_exceeded",
        "invalid_request",
        "cancelled",
    ):
        asked = request()
        made.choose(found, asked, lambda: 0.0)
        made.began(asked)
        made.ended(asked, outcome, 0.01)

    arm = collected(made)["a"]

    assert (arm.drawn, arm.answered) == (5, 5)
    assert (arm.log_latency.count, arm.errors.count, arm.errors.total) == (1, 3, 2)


def test_requests_slower_than_the_slo_are_counted() -> None:
    found = route(analysis={"slo_ms": 50})
    made = desk(found)
    for seconds in (0.01, 0.06, 0.2):
        asked = request()
        made.choose(found, asked, lambda: 0.0)
        made.ended(asked, "success", seconds)

    assert collected(made)["a"].slow == 2


def test_a_rule_on_headers_goes_before_chance_and_is_not_judged() -> None:
    found = route(match=[{"header": "X-Country", "value": "de", "arm": "b"}])
    made = desk(found)
    asked = request()
    asked.assignment = made.match("e", {"x-country": "de"})

    arm = served(made, found, asked)

    assert made.has_rules
    assert made.match("e", {"x-country": "fr"}) is None
    assert arm == "b"
    counts = collected(made)["b"]
    assert (counts.matched, counts.drawn, counts.requests) == (1, 0, 0)


def test_a_caller_is_told_the_id_it_sent_and_else_one_of_its_own() -> None:
    found = route()
    made = desk(found)
    own, other, third = request(request_id="mine"), request(), request()
    for asked in (own, other, third):
        served(made, found, asked)

    assert own.tracking_id == "mine"
    assert other.tracking_id
    assert other.tracking_id != third.tracking_id


def test_an_id_that_is_no_header_is_replaced() -> None:
    found = route()
    made = desk(found)
    asked = InferenceRequest(model="e", inputs=INPUTS, request_id="a\r\nset-cookie: b")

    served(made, found, asked)

    assert "\n" not in asked.tracking_id
    assert asked.tracking_id


def test_which_request_met_which_arm_is_told_with_the_weights_of_its_time() -> None:
    found = route()
    made = desk(found)
    served(made, found, request(request_id="r1"))
    made.next_slice()
    served(made, found, request(request_id="r2"), draw=0.99)
    made.adopt(table(replace(found, arms=arms_of({"a": 1.0, "b": 1.0}))))
    served(made, found, request(request_id="r3"))

    first, second = made.collect()

    assert (dict(first.weights), dict(second.weights)) == ({"a": 90, "b": 10}, {"a": 1, "b": 1})
    assert dict(first.asked) == {"a": pack(["r1"], bytes([0])), "b": pack(["r2"], bytes([1]))}
    assert dict(second.asked) == {"a": pack(["r3"], bytes([1]))}
    assert made.collect() == ()


def test_requests_that_failed_or_met_a_rule_cannot_be_rated() -> None:
    found = route(match=[{"header": "x-country", "value": "de", "arm": "b"}])
    made = desk(found)
    ruled, failed = request(request_id="ruled"), request(request_id="failed")
    ruled.assignment = made.match("e", {"x-country": "de"})
    served(made, found, ruled)
    made.choose(found, failed, lambda: 0.0)
    made.began(failed)
    made.ended(failed, "engine_failed", 0.01)

    (tallied,) = made.collect()

    assert tallied.asked == {}


def test_a_sticky_caller_is_one_unit_and_all_its_requests_are_one_cluster() -> None:
    found = route(split={"a": 1})
    made = desk(found)
    for _ in range(5):
        served(made, found, request(user="anna"))
        made.next_slice()

    (tallied,) = made.collect()

    assert len(tallied.callers["a"]) == 1
    assert max(tallied.arms["a"].log_latency.counts) == 5


def test_requests_of_different_moments_are_different_clusters() -> None:
    found = route(split={"a": 1})
    made = desk(found)
    for _ in range(5):
        served(made, found, request())
        made.next_slice()

    assert sorted(collected(made)["a"].log_latency.counts)[-5:] == [1] * 5


@pytest.mark.parametrize("is_same", [True, False])
def test_weights_that_did_not_change_are_not_a_new_stratum(is_same: bool) -> None:
    found = route()
    made = desk(found)
    served(made, found, request())
    made.adopt(table(found if is_same else replace(found, arms=arms_of({"a": 1.0, "b": 1.0}))))
    served(made, found, request())

    assert len(made.collect()) == (1 if is_same else 2)


def test_the_rows_of_an_arm_are_counted_where_it_is_batched() -> None:
    found = route(split={"a": 1})
    wide = (tensor("x", np.zeros((7, 1), dtype=np.float32)),)
    variant = variants().routes["a"]
    assert isinstance(variant, VariantRoute)
    counted = []
    for is_batched in (True, False):
        facts = replace(variant.facts, is_batched=is_batched)
        made = ExperimentDesk()
        routes = {"e": found, "a": replace(variant, facts=facts)}
        made.adopt(RoutingTable(version=1, routes=routes))
        for _ in range(2):
            served(made, found, InferenceRequest(model="e", inputs=wide))
        counted.append(collected(made)["a"].rows)

    assert counted == [14, 2]
