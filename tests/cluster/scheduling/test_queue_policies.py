"""Every policy of the queue against the plain reference, on random histories."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import Overloaded
from cluster.scheduling.batch_queue import BatchQueue
from cluster.scheduling.decision import Queued, Run, Wait
from cluster.scheduling.lane import PATIENCE_S
from cluster.scheduling.policy import BatchPolicy, LevelPolicy
from tests.cluster.scheduling.reference_queue import ReferenceQueue

LEVELS = st.builds(
    LevelPolicy,
    max_queue_size=st.sampled_from([0, 3, 8]),
    default_timeout_s=st.sampled_from([float("inf"), 2.0, 5.0]),
    allow_timeout_override=st.booleans(),
    timeout_action=st.sampled_from(["reject", "delay"]),
)


@st.composite
def policies(draw: st.DrawFn) -> BatchPolicy:
    num_levels = draw(st.integers(0, 3))
    return BatchPolicy(
        max_batch_size=draw(st.integers(4, 8)),
        max_queue_delay_s=draw(st.sampled_from([0.0, 1.0, 4.0])),
        preferred_batch_sizes=tuple(draw(st.sets(st.integers(1, 4), max_size=2))),
        priority_levels=num_levels,
        default_priority_level=draw(st.integers(1, num_levels)) if num_levels else 0,
        level=draw(LEVELS),
        levels=draw(st.dictionaries(st.integers(1, num_levels), LEVELS)) if num_levels else {},
    )


PUSH = st.tuples(
    st.integers(1, 4),  # rows
    st.integers(0, 4),  # priority
    st.sampled_from("abc"),  # tenant
    st.sampled_from([1.0, 3.0, 20.0]),  # time to the deadline
    st.sampled_from("ssst"),  # shape
)
STEPS = st.lists(
    st.one_of(PUSH, PUSH, PUSH, PUSH, st.sampled_from([0.0, 0.5, 2.0])), min_size=12, max_size=80
)


@settings(max_examples=300)
@given(policies(), STEPS)
def test_any_history_is_decided_as_the_plain_rules_say(
    policy: BatchPolicy, steps: list[tuple[int, int, str, float, str] | float]
) -> None:
    queue: BatchQueue[int] = BatchQueue(policy)
    reference = ReferenceQueue(policy=policy)
    now_s = 0.0
    for number, step in enumerate(steps):
        # No two things happen at one moment: order of equal times is not promised.
        now_s += 1e-3
        if isinstance(step, tuple):
            rows, priority, tenant, left_s, shape = step
            item = Queued(
                payload=number,
                rows=rows,
                arrived_s=now_s,
                deadline_s=now_s + left_s,
                shape_key=shape,
                priority=priority,
                tenant=tenant,
            )
            is_taken = reference.push(item)
            if is_taken:
                queue.push(item)
            else:
                with pytest.raises(Overloaded, match="Exceeds maximum queue size"):
                    queue.push(item)
            continue
        now_s += step
        decision = queue.decide(now_s)
        batch, dropped = reference.decide(now_s)

        ran = [item.payload for item in decision.batch] if isinstance(decision, Run) else []
        assert ran == batch, decision
        assert {drop.item.payload for drop in decision.dropped} == dropped
        assert len(queue) == len(reference.waiting)


def queued(payload: int, **facts: object) -> Queued[int]:
    return Queued(**{"payload": payload, "rows": 1, "arrived_s": 0.0, **facts})  # type: ignore[arg-type]


def payloads(decision: object) -> list[int]:
    assert isinstance(decision, Run), decision
    return [item.payload for item in decision.batch]


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(1, 5), st.floats(0.5, 64.0)), min_size=40
    ),
    st.integers(5, 9),
)
def test_tenants_that_both_wait_are_served_alike_within_twice_the_heaviest_request(
    requests: list[tuple[str, int, float]], max_batch_size: int
) -> None:
    queue: BatchQueue[int] = BatchQueue(BatchPolicy(max_batch_size=max_batch_size))
    left = {"a": 0, "b": 0}
    for number, (tenant, rows, weight) in enumerate(requests):
        queue.push(queued(number, rows=rows, tenant=tenant, weight=weight))
        left[tenant] += 1
    heaviest = max(weight for _, _, weight in requests)
    served = {"a": 0.0, "b": 0.0}
    while isinstance(decision := queue.decide(1.0), Run):
        for item in decision.batch:
            if left["a"] and left["b"]:
                served[item.tenant] += item.weight
                assert abs(served["a"] - served["b"]) <= 2 * heaviest
            left[item.tenant] -= 1


def test_a_tenant_that_slept_gets_no_credit_for_it() -> None:
    queue: BatchQueue[int] = BatchQueue(BatchPolicy(max_batch_size=1))
    for number in range(10):
        queue.push(queued(number, tenant="busy"))
    for _ in range(6):
        queue.decide(0.0)
    for number in range(20, 24):
        queue.push(queued(number, tenant="slept"))

    order = [payloads(queue.decide(0.0))[0] for _ in range(8)]

    # One after the other from here on; without the lift the sleeper would get six in a row.
    assert order[:4] in ([20, 6, 21, 7], [6, 20, 7, 21], [20, 21, 6, 22])


@given(st.lists(st.tuples(st.sampled_from([32, 64, 128]), st.floats(0.05, 5.0)), max_size=80))
def test_no_bucket_is_passed_over_by_one_that_came_a_patience_later(
    requests: list[tuple[int, float]],
) -> None:
    policy = BatchPolicy(max_batch_size=4, has_shape_lanes=True)
    queue: BatchQueue[int] = BatchQueue(policy)
    waiting: dict[int, float] = {}
    now_s = 0.0
    for number, (bucket, left_s) in enumerate(requests):
        now_s += 0.05
        queue.push(queued(number, arrived_s=now_s, deadline_s=100 + left_s, shape_key=bucket))
        waiting[number] = now_s
        if number % 6 == 5:
            decision = queue.decide(now_s)
            assert isinstance(decision, Run)
            assert len({item.shape_key for item in decision.batch}) == 1
            for item in decision.batch:
                del waiting[item.payload]
            oldest_s = min(waiting.values(), default=now_s)
            assert decision.batch[0].arrived_s <= oldest_s + PATIENCE_S


def test_a_bucket_that_waits_for_company_does_not_hold_up_a_full_one() -> None:
    policy = BatchPolicy(max_batch_size=2, max_queue_delay_s=9.0, has_shape_lanes=True)
    queue: BatchQueue[int] = BatchQueue(policy)
    for number, bucket in enumerate([128, 32, 32]):
        queue.push(queued(number, shape_key=bucket))

    assert payloads(queue.decide(0.0)) == [1, 2]
    assert isinstance(queue.decide(0.0), Wait)


def test_a_tenant_with_little_is_not_behind_the_backlog_of_another() -> None:
    queue: BatchQueue[int] = BatchQueue(BatchPolicy(max_batch_size=8))
    for number in range(100):
        queue.push(queued(number, tenant="flood"))

    assert queue.rows_ahead(0, "flood", 1) == 100
    assert queue.rows_ahead(0, "light", 1) == 1


def test_what_waits_in_lower_levels_is_not_ahead() -> None:
    policy = BatchPolicy(max_batch_size=8, priority_levels=2, default_priority_level=2)
    queue: BatchQueue[int] = BatchQueue(policy)
    for number in range(10):
        queue.push(queued(number, priority=2))

    assert queue.rows_ahead(1, "", 1) == 0
    assert queue.rows_ahead(2, "", 1) == 10


def test_a_withdrawn_request_is_gone_once() -> None:
    queue: BatchQueue[int] = BatchQueue(BatchPolicy(max_batch_size=8))
    items = [queued(number) for number in range(3)]
    for item in items:
        queue.push(item)

    assert queue.withdraw(items[1])
    assert not queue.withdraw(items[1])
    assert payloads(queue.decide(0.0)) == [0, 2]
