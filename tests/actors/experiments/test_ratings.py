"""Feedback at the controller, for requests of any door, alive or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from actors.experiments.control import ExperimentControl
from actors.experiments.kept import Kept
from actors.experiments.kept_runs import MAX_INLINE
from cluster.experiments.asked import pack
from cluster.experiments.counts import ArmCounts
from cluster.experiments.report import Feedback, Post, Rated, Report, Tallied
from tests.actors.experiments.test_control import WEIGHTS, Memory, control, table


def told(door: str, number: int, *ids: str, arm: str = "a") -> Report:
    """A door has answered these requests."""
    clusters = bytes(at % 64 for at in range(len(ids)))
    tallied = Tallied(
        experiment="e",
        weights=WEIGHTS,
        arms={arm: ArmCounts(answered=len(ids))},
        asked={arm: pack(ids, clusters)},
    )
    return Report(door=door, number=number, tallies=(tallied,))


def rate(made: ExperimentControl, *ids: str, value: float = 1.0) -> int | None:
    """By a door that has answered nothing itself."""
    given = tuple(Feedback(request_id=each, value=value) for each in ids)
    (counted,) = made.take("asked", None, [Post(experiment="e", feedback=given)])
    return counted


def rated(made: ExperimentControl) -> list[int]:
    found: Any = made.view("e")
    return [arm["rated"] for arm in found["arms"]]


def feedback(made: ExperimentControl) -> object:
    return made.view("e")["feedback"]


def test_any_door_may_be_given_the_feedback_for_a_request_of_another_one_that_is_gone() -> None:
    made = control(Memory())
    made.take("gone", told("gone", 1, "r1", "r2"))
    made.take("other", told("other", 1, "r3", arm="b"))

    assert rate(made, "r1", "r3", "nobody's") == 2
    assert rate(made, "r1") == 0
    assert rated(made) == [1, 1]
    assert feedback(made) == {"counted": 2, "handed_on": 2, "found": 0}


def test_a_doors_own_newest_requests_come_with_the_feedback_for_them() -> None:
    made = control(Memory())
    post = Post(experiment="e", feedback=(Feedback(request_id="r1", value=0.25),))

    counted = made.take("d", told("d", 1, "r1"), [post, Post(experiment="gone", feedback=())])

    assert counted == [1, None]
    found: Any = made.view("e")
    assert found["arms"][0]["quality"] == 0.25


def test_feedback_that_comes_before_its_door_has_told_waits_also_for_the_next_controller() -> None:
    memory = Memory()
    first = control(memory)
    assert rate(first, "r1", "r2", "r2") == 0
    first.keep()

    second = control(memory)
    second.take("d", told("d", 1, "r2", "r9"))

    assert rated(second) == [1, 0]
    assert feedback(second) == {"counted": 1, "handed_on": 3, "found": 1}
    assert rate(second, "r2") == 0


def test_feedback_for_a_request_that_nobody_tells_of_is_given_up() -> None:
    memory, now_s = Memory(), [1000.0]
    made = ExperimentControl(memory, clock=lambda: now_s[0])
    made.adopt(table())
    rate(made, "r1")
    now_s[0] += 61
    made.take("d", told("d", 1, "r1"))
    made.keep()

    assert rated(made) == [0, 0]
    assert memory.kept.feedback == ()


def test_a_report_that_comes_twice_is_rated_once() -> None:
    memory = Memory()
    made = control(memory)
    post = Post(experiment="e", feedback=(Feedback(request_id="r1", value=1.0),))
    made.take("d", told("d", 1, "r1"), [post])
    made.keep()

    # The controller died before it answered.
    second = control(memory)
    second.take("d", told("d", 1, "r1"), [post])

    assert rated(second) == [1, 0]


def test_requests_and_ratings_outlive_the_controller_small_and_large() -> None:
    memory = Memory()
    made = control(memory)
    many = [f"m{number}" for number in range(3 * MAX_INLINE)]
    made.take("d", told("d", 1, *many))
    made.take("d", told("d", 2, "few"))
    rate(made, *many[:100], "few")
    made.keep()
    assert len(memory.beside) == 1

    second = control(memory)

    assert rate(second, *many, "few") == len(many) - 100
    second.keep()
    assert rate(control(memory), *many) == 0
    assert rated(control(memory)) == [len(many) + 1, 0]


class Dying(Memory):
    """The controller that writes into it is killed before its document is there."""

    is_dying = False

    def write(self, kept: Kept) -> None:
        if self.is_dying:
            raise InterruptedError
        super().write(kept)


def test_a_controller_that_dies_between_two_writes_leaves_what_was_before() -> None:
    memory = Dying()
    made = control(memory)
    made.take("d", told("d", 1, *[f"r{number}" for number in range(2 * MAX_INLINE)]))
    made.keep()
    memory.is_dying = True
    second = told("d", 2, *[f"s{number}" for number in range(2 * MAX_INLINE)])
    made.take("d", second)
    rate(made, "r0")
    with pytest.raises(InterruptedError):
        made.keep()
    memory.is_dying = False

    after = control(memory)
    # Nobody confirmed the report, and nobody answered the feedback: both come again.
    after.take("d", second)

    assert rate(after, "r0", "r2047", "s0") == 3
    assert rated(after) == [3, 0]


def test_runs_that_no_document_names_are_dropped() -> None:
    memory = Memory()
    memory.beside = {7: b"of a controller that died before it wrote its document"}

    control(memory)

    assert memory.beside == {}


def test_a_run_that_cannot_be_read_costs_its_requests_and_nothing_else() -> None:
    memory = Memory()
    made = control(memory)
    made.take("d", told("d", 1, *[f"r{number}" for number in range(2 * MAX_INLINE)]))
    made.take("d", told("d", 2, "few"))
    made.keep()
    memory.beside = {number: content[:9] for number, content in memory.beside.items()}

    after = control(memory)

    assert rate(after, "r0", "few") == 1


def test_an_experiment_that_begins_anew_forgets_its_requests() -> None:
    memory = Memory()
    made = control(memory)
    made.take("d", told("d", 1, "r1"))
    made.reset("e")

    assert rate(made, "r1") == 0
    assert rate(control(memory, sticky_header="x-other"), "r1") == 0


def test_each_value_is_passed_on_once_with_its_arm() -> None:
    passed: list[Rated] = []
    made = ExperimentControl(Memory(), clock=lambda: 1000.0, rated=passed.extend)
    made.adopt(table())
    given: Sequence[str] = ("r1", "r1", "nobody's", "late")
    made.take("d", told("d", 1, "r1", arm="b"))
    rate(made, *given)
    rate(made, *given)
    made.take("d", told("d", 2, "late"))

    assert [(each.request_id, each.arm, each.value, each.at_s) for each in passed] == [
        ("r1", "b", 1.0, 1000.0),
        ("late", "a", 1.0, 1000.0),
    ]
