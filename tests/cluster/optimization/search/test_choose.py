"""The front and the choice, on costs that are known."""

from __future__ import annotations

import pytest

from cluster.errors import ConfigError
from cluster.optimization.gate.agreement import Agreement
from cluster.optimization.gate.gate import Accuracy, Verdict
from cluster.optimization.gate.intervals import Interval, wilson
from cluster.optimization.measure.timing import Timing
from cluster.optimization.search.choose import Constraints, choose, mark_front
from cluster.optimization.search.report import Candidate


def candidate(name: str, ms: float, megabytes: float) -> Candidate:
    return Candidate(
        name=name,
        engine="onnxruntime",
        precision="fp32",
        says="",
        model="m",
        status="measured",
        timing=Timing(wall_ms=[ms] * 200, cpu_ms=[ms] * 200),
        speedup=Interval(value=10 / ms, low=10 / ms, high=10 / ms),
        size_bytes=int(megabytes * 1e6),
    )


def test_the_front_holds_what_nothing_else_beats() -> None:
    fast, small, worse = candidate("a", 1, 9), candidate("b", 5, 2), candidate("c", 6, 9)

    mark_front([fast, small, worse])

    assert [fast.is_on_front, small.is_on_front, worse.is_on_front] == [True, True, False]


def judged(each: Candidate, *, agrees: int, gained: int, is_shown: bool) -> Candidate:
    """Of 1,000 labelled items `agrees` keep their class, `gained` more are right than before."""
    change = Interval(value=gained / 10, low=-0.4 if is_shown else -2.0, high=1.0)
    half = Interval(value=0.5, low=0.5, high=0.5)
    each.verdict = Verdict(
        passed=True,
        is_validated=True,
        is_shown=is_shown,
        reasons=(),
        agreement=Agreement(
            num_items=1000, top1=wilson(agrees, 1000), cosine=half, cosine_min=0.5, kl=0, max_abs=0
        ),
        accuracy=Accuracy(num_items=1000, original=half, optimised=half, change_points=change),
    )
    return each


def test_one_measure_of_loss_ranks_the_whole_front() -> None:
    # Labels say of one that it lost nothing, of the other not surely enough: the shares of
    # decisions that changed are compared, not the one's accuracy with the other's decisions.
    surely = judged(candidate("a", 1, 9), agrees=985, gained=0, is_shown=True)
    closer = judged(candidate("b", 2, 9), agrees=999, gained=-1, is_shown=False)
    mark_front([surely, closer])
    assert [surely.is_on_front, closer.is_on_front] == [True, True]

    closer = judged(closer, agrees=999, gained=-1, is_shown=True)
    mark_front([surely, closer])
    assert [surely.is_on_front, closer.is_on_front] == [True, False]


def test_with_several_threads_the_wait_ranks_and_not_the_work() -> None:
    spinning, waiting = candidate("spins", 3, 9), candidate("waits", 4, 9)
    for each in (spinning, waiting):
        each.is_by_wall = True
        assert each.timing is not None
    spinning.timing = Timing(wall_ms=[3.0] * 9, cpu_ms=[12.0] * 9)

    assert choose([spinning, waiting], Constraints(), "x").chosen is spinning


def test_the_cheapest_is_chosen_with_its_reason() -> None:
    found = choose([candidate("original", 10, 9), candidate("b", 2, 9)], Constraints(), "original")

    assert found.chosen.name == "b"
    assert found.constraints_met
    assert "5.00 times as fast as original" in found.reason


def test_of_equal_costs_the_smaller_is_chosen() -> None:
    found = choose([candidate("a", 2.0, 9), candidate("b", 2.04, 3)], Constraints(), "a")

    assert found.chosen.name == "b"
    assert "cost the same within 3%" in found.reason


@pytest.mark.parametrize(
    "constraints",
    [
        Constraints(max_size_bytes=4_000_000),
        Constraints(max_size_bytes=4_000_000, max_latency_ms=6),
    ],
)
def test_a_constraint_takes_the_cheapest_out(constraints: Constraints) -> None:
    found = choose([candidate("big", 1, 9), candidate("small", 5, 2)], constraints, "big")

    assert found.chosen.name == "small"


def test_constraints_that_nobody_keeps_are_named_and_the_cheapest_is_given() -> None:
    found = choose([candidate("a", 8, 9)], Constraints(max_p99_ms=5, max_size_bytes=10), "x")

    assert not found.constraints_met
    assert "p99 8.00 ms above 5 ms" in found.reason
    assert "9.0 MB above" in found.reason


def test_nothing_faster_than_the_original_is_said() -> None:
    found = choose([candidate("original", 1, 1), candidate("b", 3, 3)], Constraints(), "original")

    assert found.chosen.name == "original"
    assert "nothing was faster than the original" in found.reason


@pytest.mark.parametrize("name", ["max_latency_ms", "max_p99_ms", "max_size_bytes"])
def test_a_constraint_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Constraints(**{name: 0})
