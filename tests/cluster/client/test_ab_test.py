from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, cast

import pytest

from cluster.client.ab_test import AbStatistics, ABTest


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


def statistics_of(a: Sequence[float], b: Sequence[float]) -> AbStatistics:
    """As if the models had taken so long."""
    test = ABTest(cast(Any, Named("one")), cast(Any, Named("two")))
    for side, seconds in (("a", a), ("b", b)):
        counts = test._counts[cast(Any, side)]
        counts.latencies_s.extend(seconds)
        counts.requests = counts.drawn = len(seconds)
    return test.get_statistics()


def seconds(seed: int, mean: float, count: int = 400) -> list[float]:
    draw = random.Random(seed)
    return [mean * draw.lognormvariate(0, 0.2) for _ in range(count)]


def test_a_faster_model_is_to_be_promoted_and_the_interval_says_by_how_much() -> None:
    found = statistics_of(seconds(1, 0.1), seconds(2, 0.08))

    assert (found.verdict, found.is_significant) == ("promote", True)
    assert found.interval_percent is not None
    low, high = found.interval_percent
    assert 0 < low < 20 < high < 40
    assert found.reason.startswith("b takes ")
    assert (found["sample_ratio"]["ok"], found.as_dict()["verdict"]) == (True, "promote")


def test_a_slower_model_is_to_be_rolled_back() -> None:
    found = statistics_of(seconds(1, 0.1), seconds(2, 0.13))

    assert found.verdict == "roll_back"
    assert found.interval_percent is not None
    assert found.interval_percent[1] < 0


def test_equal_models_keep_going_and_the_interval_covers_zero() -> None:
    found = statistics_of(seconds(1, 0.1), seconds(2, 0.1))

    assert found.verdict == "keep_going"
    assert found.interval_percent is not None
    assert found.interval_percent[0] < 0 < found.interval_percent[1]


def test_few_answers_have_no_interval() -> None:
    found = statistics_of(seconds(1, 0.1, 19), seconds(2, 0.1, 19))

    assert (found.interval_percent, found.p_value, found.verdict) == (None, 1.0, "keep_going")


def test_calls_that_do_not_split_as_they_should_block_the_verdict() -> None:
    found = statistics_of(seconds(1, 0.1, 900), seconds(2, 0.08, 600))

    assert found.verdict == "blocked"
    assert not found.sample_ratio.ok


@pytest.mark.parametrize("key", ["", "user"])
def test_only_what_was_drawn_is_asked_whether_it_splits(key: str) -> None:
    test = ABTest(cast(Any, Named("one")), cast(Any, Named("two")), 0.5)
    for _ in range(500):
        test.choose(key)

    assert test.get_statistics().sample_ratio.ok


def with_errors(a: int, b: int, *, b_seconds: float = 0.1, count: int = 400) -> AbStatistics:
    """So many of `count` calls failed; the others of a took 0.1 s."""
    test = ABTest(cast(Any, Named("one")), cast(Any, Named("two")))
    for seed, (side, mean, errors) in enumerate((("a", 0.1, a), ("b", b_seconds, b))):
        counts = test._counts[cast(Any, side)]
        counts.latencies_s = seconds(seed, mean, count - errors)
        counts.requests, counts.errors = count, errors
    return test.get_statistics()


def test_a_model_that_fails_more_calls_is_rolled_back_however_quick_it_is() -> None:
    found = with_errors(2, 80, b_seconds=0.02)

    assert found.verdict == "roll_back"
    assert found.reason.startswith("b fails 20.0% of its calls and a 0.5%")


def test_a_model_that_fails_fewer_calls_is_promoted_though_it_is_slower() -> None:
    assert with_errors(80, 2, b_seconds=0.12).verdict == "promote"


@pytest.mark.parametrize(("a", "b"), [(0, 0), (0, 2), (3, 5), (40, 44)])
def test_errors_that_may_be_chance_decide_nothing(a: int, b: int) -> None:
    assert with_errors(a, b, b_seconds=0.05).verdict == "promote"  # for its speed


def test_a_model_that_never_answers_is_rolled_back() -> None:
    assert with_errors(0, 400).verdict == "roll_back"
