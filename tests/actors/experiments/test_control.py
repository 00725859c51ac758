from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors.experiments.control import ExperimentControl
from actors.experiments.kept import Kept, dumped, parsed
from cluster.config.experiment import ExperimentConfig
from cluster.control.reconcile import MoveTraffic, Snapshot, reconcile
from cluster.errors import InvalidRequest, ModelNotFound
from cluster.experiments.agreement import compare
from cluster.experiments.counts import ArmCounts
from cluster.experiments.report import Report, Tallied
from cluster.experiments.step import Step
from cluster.routing.table import ExperimentRoute, RoutingTable, arms_of
from cluster.tensors import Signature, tensor
from tests.cluster.experiments.making import arm

WEIGHTS = {"a": 1.0, "b": 1.0}


class Memory:
    """A store that is this object."""

    def __init__(self) -> None:
        self.kept = Kept()
        self.beside: dict[int, bytes] = {}

    def read(self) -> Kept:
        return self.kept

    def write(self, kept: Kept) -> None:
        self.kept = parsed(dumped(kept))

    def runs(self) -> Mapping[int, bytes]:
        return dict(self.beside)

    def write_run(self, number: int, content: bytes) -> None:
        self.beside[number] = content

    def drop_run(self, number: int) -> None:
        del self.beside[number]


def table(**config: Any) -> RoutingTable:
    asked = ExperimentConfig.model_validate({"split": WEIGHTS, **config})
    route = ExperimentRoute(
        name="e",
        arms=arms_of(asked.first_weights()),
        sticky_header="",
        signature=Signature(inputs=(), outputs=()),
        config=asked,
    )
    return RoutingTable(version=1, routes={"e": route})


def control(memory: Memory, **config: Any) -> ExperimentControl:
    made = ExperimentControl(memory, clock=lambda: 1000.0)
    made.adopt(table(**config))
    return made


def report(number: int, callers: tuple[int, ...] = (), **arms: ArmCounts) -> Report:
    told = {"a": callers} if callers else {}
    tallied = Tallied(experiment="e", weights=WEIGHTS, arms=arms, callers=told)
    return Report(door="d", number=number, tallies=(tallied,))


def requests(made: ExperimentControl) -> list[int]:
    found: Any = made.view("e")
    return [each["requests"] for each in found["arms"]]


def test_a_report_that_comes_twice_counts_once() -> None:
    made = control(Memory())

    for number in (1, 1, 2):
        made.take("d", report(number, a=arm(1, requests=100)))

    assert requests(made) == [200, 0]


def test_the_next_controller_knows_weights_counts_and_reports() -> None:
    memory = Memory()
    first = control(memory)
    first.take("d", report(1, a=arm(1, requests=100)))
    first.keep()
    first.set_weights("e", {"b": 1, "a": 3})

    second = control(memory)
    second.take("d", report(1, a=arm(1, requests=100)))

    assert second.weights == {"e": {"a": 3.0, "b": 1.0}}
    assert requests(second) == [100, 0]
    assert [event.kind for event in second.events] == ["experiment", "traffic"]


def test_events_of_an_earlier_server_stand_before_the_start_of_this_one() -> None:
    memory = Memory()
    for generation in (5, 5, 9):  # a server, its next controller, the next server
        made = ExperimentControl(memory, clock=lambda: 1000.0)
        made.adopt(table(), generation)

    assert [(event.kind, event.subject) for event in made.events] == [
        ("start", "all"),
        ("experiment", "e"),
        ("start", "all"),
    ]


def test_a_changed_section_ends_what_was_set_by_hand() -> None:
    memory = Memory()
    control(memory).set_weights("e", {"a": 3, "b": 1})

    changed = control(memory, sticky_header="x-other")

    assert changed.weights == {"e": WEIGHTS}


def test_a_reset_drops_what_was_set_and_counted() -> None:
    made = control(Memory())
    made.set_weights("e", {"a": 3, "b": 1})
    made.take("d", report(1, a=arm(1, requests=100)))

    made.reset("e")

    assert made.weights == {"e": WEIGHTS}
    assert requests(made) == [0, 0]


def test_a_caller_that_two_doors_met_is_one_unit() -> None:
    made = control(Memory())

    made.take("d", report(1, callers=(7, 8), a=ArmCounts(units=2)))
    made.take("other", replace(report(1, callers=(8, 9), a=ArmCounts(units=2)), door="other"))

    found: Any = made.view("e")
    assert found["arms"][0]["callers"] == 3


def test_a_decided_roll_back_is_carried_out_noted_and_kept() -> None:
    memory = Memory()
    made = control(memory, guardrails={})
    made.take("d", report(1, a=arm(1), b=arm(2, log_latency=-4.5)))

    actions = reconcile(Snapshot(at_s=1000.0, experiments=made.seen()))
    made.act(actions)
    made.keep()

    assert any(isinstance(action, MoveTraffic) for action in actions)
    assert made.weights == {"e": {"a": 1, "b": 0}}
    assert memory.kept.experiments["e"].status == "rolled_back"
    assert "latency" in made.events[-1].reason
    assert reconcile(Snapshot(at_s=2000.0, experiments=made.seen())) == ()


def test_weights_set_after_a_verdict_begin_anew() -> None:
    made = control(Memory(), guardrails={})
    made.take("d", report(1, a=arm(1), b=arm(2, log_latency=-4.5)))
    made.act(reconcile(Snapshot(at_s=1000.0, experiments=made.seen())))

    made.set_weights("e", {"a": 9, "b": 1})

    found: Any = made.view("e")
    assert (found["status"], found["verdict"]) == ("running", "keep_going")
    assert requests(made) == [0, 0]


def test_weights_that_do_not_fit_change_nothing() -> None:
    made = control(Memory())

    for wrong in ({"a": 1}, {"a": 1, "b": 1, "c": 1}, {"a": -1, "b": 1}, {"a": 0, "b": 0}):
        with pytest.raises(InvalidRequest):
            made.set_weights("e", wrong)
    with pytest.raises(InvalidRequest):
        made.set_weights("e", {"a": float("nan"), "b": 1})
    with pytest.raises(ModelNotFound, match="allowed: e"):
        made.set_weights("f", {"a": 1, "b": 1})

    assert made.weights == {"e": WEIGHTS}


@pytest.mark.parametrize(
    "weights", [{"a": 1e-200, "b": 1e200}, {"a": 1e308, "b": 1e308}, {"a": 1e-7, "b": 1}]
)
def test_weights_that_leave_the_range_of_numbers_are_refused_and_nothing_is_kept(
    weights: dict[str, float],
) -> None:
    memory = Memory()
    made = control(memory)

    with pytest.raises(InvalidRequest, match="at least 1e-06 of the sum"):
        made.set_weights("e", weights)

    assert made.weights == {"e": WEIGHTS}
    assert control(memory).weights == {"e": WEIGHTS}


def test_masked_scores_in_a_copy_leave_what_is_kept_readable() -> None:
    memory = Memory()
    made = control(memory)
    masked = (tensor("s", np.array([[0.5, -np.inf]])),)
    copied = ArmCounts(agreement=compare(masked, (tensor("s", np.array([[0.5, 1.0]])),)))
    made.take("d", report(1, a=copied))
    made.keep()

    assert parsed(dumped(memory.kept)) == memory.kept


def test_what_is_kept_after_the_clock_was_set_back_is_the_newest_all_the_same() -> None:
    memory, now_s = Memory(), [1000.0]
    made = ExperimentControl(memory, clock=lambda: now_s[0])
    made.adopt(table())
    before = memory.kept.saved_s
    now_s[0] = 500.0
    made.set_weights("e", {"a": 1, "b": 3})
    first = memory.kept.saved_s
    after = ExperimentControl(memory, clock=lambda: now_s[0])
    after.adopt(table())
    after.set_weights("e", {"a": 3, "b": 1})

    assert before < first < memory.kept.saved_s


def test_a_bandit_that_moves_all_day_does_not_fill_the_events() -> None:
    """They keep a thousand; what moved nobody by five points is not told again."""
    made = control(Memory(), bandit={"update_s": 10})

    def moves(**weights: float) -> None:
        step = Step(weights=weights, status="running", reason="likely", rewards={"a": (1.0, 0.0)})
        made.act((MoveTraffic(experiment="e", step=step),))

    moves(a=0.5, b=0.5)
    for turn in range(100):
        moves(a=0.5 + 0.0005 * turn, b=0.5 - 0.0005 * turn)
    assert made.weights["e"]["a"] > 0.5
    for share in (0.53, 0.56, 0.58, 0.95, 0.95):
        moves(a=share, b=1 - share)

    told = [event.reason.partition(":")[0] for event in made.events if event.kind == "traffic"]
    assert told == ["a 0.5, b 0.5", "a 0.56, b 0.44", "a 0.95, b 0.05"]
