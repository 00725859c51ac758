"""Sequences in virtual time: slots, order, starts, ends, idleness; against every interleaving that
hypothesis finds."""

from __future__ import annotations

from collections import defaultdict
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config.sequences import SequencesConfig
from cluster.config.variant import BatchingConfig
from cluster.errors import DeadlineExceeded, InvalidRequest, Overloaded
from cluster.requests import SequenceStep
from cluster.scheduling.decision import Idle, Queued, Wait
from cluster.scheduling.sequences import (
    RunSequences,
    SequencePolicy,
    SequenceQueue,
    sequence_policy,
)


def queue(**changes: Any) -> SequenceQueue[str]:
    fields: dict[str, Any] = {
        "is_direct": True,
        "num_slots": 2,
        "max_batch_size": 2,
        "idle_s": 1.0,
        "max_queue_size": 100,
    }
    return SequenceQueue(SequencePolicy(**fields | changes))


def item(name: str = "", at_s: float = 0.0, *, deadline_s: float = inf) -> Queued[str]:
    return Queued(payload=name, rows=1, arrived_s=at_s, deadline_s=deadline_s)


def start(key: int | str, *, ends: bool = False) -> SequenceStep:
    return SequenceStep(id=key, is_start=True, is_end=ends)


def more(key: int | str, *, ends: bool = False) -> SequenceStep:
    return SequenceStep(id=key, is_end=ends)


def run(waiting: SequenceQueue[str], now_s: float = 0.0) -> RunSequences[str]:
    """The next batch, taken as computed."""
    decision = waiting.decide(now_s)
    assert isinstance(decision, RunSequences)
    waiting.finished(now_s)
    return decision


def names(decision: RunSequences[str]) -> list[str]:
    return [member.item.payload for member in decision.members]


def test_a_batch_holds_one_request_of_each_sequence() -> None:
    waiting = queue()
    for name, step in (("a1", start("a")), ("a2", more("a")), ("b1", start("b"))):
        waiting.push(item(name), step, 0.0)

    assert names(run(waiting)) == ["a1", "b1"]
    assert names(run(waiting)) == ["a2"]
    assert isinstance(waiting.decide(0.0), Wait)


def test_a_first_request_without_start_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="sequence 7 must specify the START flag on the first"):
        queue().push(item(), more(7), 0.0)


def test_the_integer_7_and_the_text_7_are_two_sequences() -> None:
    waiting = queue()
    waiting.push(item(), start(7), 0.0)

    with pytest.raises(InvalidRequest):
        waiting.push(item(), more("7"), 0.0)


def test_after_its_end_a_sequence_must_start_again() -> None:
    waiting = queue()
    waiting.push(item(), start(1, ends=True), 0.0)

    with pytest.raises(InvalidRequest):
        waiting.push(item(), more(1), 0.0)


def test_direct_keeps_a_sequence_in_its_row_others_are_not_ready() -> None:
    waiting = queue()
    waiting.push(item("a1"), start("a"), 0.0)
    waiting.push(item("b1"), start("b"), 0.0)
    run(waiting)
    waiting.push(item("b2"), more("b"), 0.0)
    decision = run(waiting)

    assert [(m.item.payload, m.row) for m in decision.members] == [("b2", 1)]
    assert decision.num_rows == 2


def test_oldest_takes_the_oldest_requests_without_gaps() -> None:
    waiting = queue(is_direct=False, num_slots=10)
    for at_s, key in enumerate("cab"):
        waiting.push(item(key, at_s), start(key), at_s)

    decision = run(waiting, 3.0)
    assert [(m.item.payload, m.row) for m in decision.members] == [("c", 0), ("a", 1)]


def test_a_sequence_without_a_slot_waits_until_another_ends() -> None:
    waiting = queue()
    for key in "abc":
        waiting.push(item(key), start(key), 0.0)
    assert names(run(waiting)) == ["a", "b"]
    assert isinstance(waiting.decide(0.0), Wait)

    waiting.push(item("a2"), more("a", ends=True), 0.5)
    assert names(run(waiting, 0.5)) == ["a2"]
    assert names(run(waiting, 0.5)) == ["c"]


def test_an_idle_sequence_loses_its_slot_and_its_state() -> None:
    waiting = queue()
    waiting.push(item(), start("a"), 0.0)
    number = run(waiting).members[0].number

    assert waiting.decide(0.5) == Wait(until_s=1.0, reason="for requests")
    assert waiting.decide(1.0) == Idle()
    assert waiting.take_ended() == (number,)
    with pytest.raises(InvalidRequest):
        waiting.push(item(), more("a"), 1.0)


def test_a_running_id_that_starts_again_is_a_new_sequence_behind_the_old_one() -> None:
    waiting = queue(num_slots=1, max_batch_size=1)
    waiting.push(item("old1"), start("a"), 0.0)
    waiting.push(item("old2"), more("a"), 0.0)
    waiting.push(item("new1"), start("a"), 0.0)

    found = [run(waiting).members[0] for _ in range(3)]
    assert [member.item.payload for member in found] == ["old1", "old2", "new1"]
    assert found[0].number == found[1].number != found[2].number
    assert waiting.take_ended() == (found[0].number,)


def test_a_start_that_is_late_takes_its_sequence_with_it() -> None:
    waiting = queue(num_slots=1, max_batch_size=1)
    waiting.push(item("a1"), start("a"), 0.0)
    run(waiting)
    waiting.push(item("b1", deadline_s=0.2), start("b"), 0.1)
    waiting.push(item("b2"), more("b"), 0.1)

    dropped = waiting.decide(0.2).dropped
    assert [drop.item.payload for drop in dropped] == ["b1", "b2"]
    assert isinstance(dropped[0].error(), DeadlineExceeded)
    with pytest.raises(InvalidRequest):
        waiting.push(item("b3"), more("b"), 0.2)


def test_a_withdrawn_request_leaves_those_behind_it() -> None:
    waiting = queue()
    waiting.push(item("a1"), start("a"), 0.0)
    run(waiting)
    gone = item("a2")
    waiting.push(gone, more("a"), 0.0)
    waiting.push(item("a3"), more("a"), 0.0)
    waiting.withdraw(gone)

    decision = run(waiting)
    assert [drop.item.payload for drop in decision.dropped] == ["a2"]
    assert names(decision) == ["a3"]


def test_oldest_waits_for_a_preferred_size_or_its_delay() -> None:
    policy: dict[str, Any] = {
        "is_direct": False,
        "num_slots": 9,
        "max_batch_size": 4,
        "preferred_batch_sizes": (2,),
        "max_queue_delay_s": 0.1,
    }
    waiting = queue(**policy)
    waiting.push(item("a"), start("a"), 0.0)
    assert waiting.decide(0.05) == Wait(until_s=0.1, reason="for requests")
    waiting.push(item("b", 0.05), start("b"), 0.05)
    assert names(run(waiting, 0.05)) == ["a", "b"]

    waiting.push(item("c", 0.05), start("c"), 0.05)
    assert names(run(waiting, 0.25)) == ["c"]


def test_direct_waits_while_too_few_slots_are_ready() -> None:
    waiting = queue(minimum_slot_utilization=1.0, max_queue_delay_s=0.1)
    waiting.push(item("a"), start("a"), 0.0)

    assert waiting.decide(0.0) == Wait(until_s=0.1, reason="for requests")
    assert names(run(waiting, 0.1)) == ["a"]


def test_requests_of_another_shape_wait_for_their_own_batch() -> None:
    waiting = queue()
    waiting.push(Queued(payload="a", rows=1, arrived_s=0, shape_key=1), start("a"), 0.0)
    waiting.push(Queued(payload="b", rows=1, arrived_s=0, shape_key=2), start("b"), 0.0)

    assert names(run(waiting)) == ["a"]
    assert names(run(waiting)) == ["b"]


def test_a_full_queue_refuses() -> None:
    waiting = queue(max_queue_size=1)
    waiting.push(item(), start("a"), 0.0)

    with pytest.raises(Overloaded, match=r"Exceeds maximum queue size \(1\)"):
        waiting.push(item(), more("a"), 0.0)


def test_a_model_without_a_batch_has_one_slot() -> None:
    config = SequencesConfig(max_sequence_idle_us=500_000)

    policy = sequence_policy(config, BatchingConfig(max_batch_size=8), is_batched=False)

    assert (policy.num_slots, policy.max_batch_size, policy.idle_s) == (1, 1, 0.5)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["start", "more", "end", "late"]), st.integers(1, 5)),
        st.tuples(st.just("run"), st.just(0)),
        st.tuples(st.just("pass"), st.integers(1, 3)),
    ),
    max_size=60,
)


@given(actions=ACTIONS, is_direct=st.booleans(), num_slots=st.integers(1, 3))
@settings(max_examples=300, deadline=None)
def test_whatever_comes_every_request_leaves_once_and_each_sequence_in_order(
    actions: list[tuple[str, int]], is_direct: bool, num_slots: int
) -> None:
    waiting = queue(is_direct=is_direct, num_slots=num_slots, max_batch_size=num_slots)
    now_s, count = 0.0, 0
    accepted: dict[str, int] = {}
    ran: dict[int, list[int]] = defaultdict(list)
    starts: dict[int, int] = {}
    left: list[str] = []
    rows: dict[int, int] = {}
    ended: list[int] = []

    def step_once() -> bool:
        decision = waiting.decide(now_s)
        left.extend(drop.item.payload for drop in decision.dropped)
        if not isinstance(decision, RunSequences):
            return False
        members = decision.members
        assert len({member.number for member in members}) == len(members) <= num_slots
        assert len({member.row for member in members}) == len(members)
        assert all(member.row < decision.num_rows <= num_slots for member in members)
        for member in members:
            left.append(member.item.payload)
            ran[member.number].append(int(member.item.payload))
            starts[member.number] = starts.get(member.number, 0) + member.step.is_start
            assert member.number not in ended
            if is_direct:
                assert rows.setdefault(member.number, member.row) == member.row
        waiting.finished(now_s)
        assert waiting.num_slots_taken <= num_slots
        ended.extend(waiting.take_ended())
        return True

    for kind, value in actions:
        if kind == "run":
            step_once()
        elif kind == "pass":
            now_s += value / 2
        else:
            count += 1
            step = SequenceStep(id=value, is_start=kind == "start", is_end=kind == "end")
            deadline_s = now_s + 0.4 if kind == "late" else inf
            try:
                waiting.push(item(str(count), now_s, deadline_s=deadline_s), step, now_s)
                accepted[str(count)] = value
            except InvalidRequest:
                assert not step.is_start
    for _ in range(200):
        now_s += 0.5
        step_once()

    assert sorted(left) == sorted(accepted)
    assert len(waiting) == 0
    assert waiting.num_slots_taken == 0
    assert all(numbers == sorted(numbers) for numbers in ran.values())
    # A sequence is never run without its own START, and only once with it.
    assert set(starts.values()) <= {1}
    assert len(ended) == len(set(ended))
