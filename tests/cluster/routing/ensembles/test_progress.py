from __future__ import annotations

import math

import pytest

from cluster.config.ensemble import EnsembleConfig
from cluster.errors import NoReadyReplica
from cluster.routing.ensembles.plan import plan_ensemble
from cluster.routing.ensembles.progress import GraphProgress
from cluster.tensors import Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 3)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 3)),),
)
LOST = NoReadyReplica("it is gone")


def progress(wanted: str = "end", hurry_s: float = math.inf, **combine: object) -> GraphProgress:
    """Members 0, 1, 2 side by side, 3 combines them, 4 follows it."""
    steps: list[dict[str, object]] = [
        {"model": "m", "outputs": {"y": name}} for name in ("a", "b", "c")
    ]
    steps.append({"combine": "mean", "inputs": ["a", "b", "c"], "output": "all", **combine})
    steps.append({"model": "m", "inputs": {"x": "all"}, "outputs": {"y": "end"}})
    config = EnsembleConfig.model_validate({"inputs": ["x"], "outputs": ["end"], "steps": steps})
    plan = plan_ensemble("e", config, {"m": SIGNATURE}, {})
    return GraphProgress(plan, inputs=["x"], wanted=[wanted], hurry_s=hurry_s)


def test_members_that_need_only_the_request_run_side_by_side_and_once() -> None:
    graph = progress()

    assert graph.start(0) == (0, 1, 2)
    assert graph.start(0) == ()
    for index in (0, 1):
        graph.finished(index)
        assert graph.start(0) == ()
    graph.finished(2)
    assert graph.start(0) == (3,)
    graph.finished(3)
    assert graph.start(0) == (4,)
    assert not graph.is_done
    graph.finished(4)
    assert graph.is_done


def test_what_nothing_wanted_depends_on_is_not_started() -> None:
    graph = progress(wanted="b")

    assert graph.start(0) == (1,)
    graph.finished(1)
    assert graph.is_done


def test_without_a_quorum_one_failed_member_is_the_end() -> None:
    graph = progress()
    graph.start(0)

    graph.failed(1, LOST)

    assert graph.error is LOST


def test_a_quorum_answers_when_the_rest_has_failed() -> None:
    graph = progress(quorum=2)
    graph.start(0)

    graph.finished(0)
    graph.failed(1, LOST)
    assert graph.start(0) == ()
    graph.finished(2)

    assert graph.start(0) == (3,)
    assert graph.error is None
    assert graph.missing == {"b"}


def test_a_quorum_that_cannot_be_reached_any_more_is_the_end_with_the_last_failure() -> None:
    graph = progress(quorum=2)
    graph.start(0)

    graph.failed(0, NoReadyReplica("another"))
    assert graph.error is None
    graph.failed(1, LOST)

    assert graph.error is LOST


def test_a_reached_quorum_waits_for_the_rest_as_long_as_it_is_told() -> None:
    graph = progress(quorum=2, wait_ms=50)
    graph.start(10.0)

    graph.finished(0)
    graph.finished(1)

    assert graph.start(10.2) == ()
    assert graph.due_s() == 10.25
    assert graph.start(10.24) == ()
    assert graph.start(10.25) == (3,)
    assert graph.due_s() is None


def test_a_quorum_without_a_waiting_time_waits_until_the_rest_has_ended() -> None:
    graph = progress(quorum=1)
    graph.start(0)

    graph.finished(0)

    assert graph.start(1e9) == ()
    assert graph.due_s() == float("inf")


@pytest.mark.parametrize("combine", [{}, {"wait_ms": 60_000}])
def test_a_quorum_does_not_wait_until_there_is_no_time_left_to_answer(
    combine: dict[str, object],
) -> None:
    """A member that hangs has until the deadline; what waited as long would answer nobody."""
    graph = progress(quorum=2, hurry_s=19.0, **combine)  # type: ignore[arg-type]
    graph.start(10.0)
    graph.finished(0)
    graph.finished(2)

    assert graph.start(10.1) == ()
    assert graph.due_s() == 19.0
    assert graph.start(19.0) == (3,)


def test_in_a_hurry_a_quorum_that_is_reached_late_waits_for_nobody() -> None:
    graph = progress(quorum=2, hurry_s=19.0)
    graph.start(10.0)
    graph.finished(0)
    assert graph.start(19.5) == ()

    graph.finished(1)

    assert graph.start(19.6) == (3,)
