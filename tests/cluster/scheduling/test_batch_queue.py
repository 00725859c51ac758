from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Overloaded
from cluster.scheduling.batch_queue import BatchQueue
from cluster.scheduling.decision import Idle, Queued, Run, Wait
from cluster.scheduling.policy import BatchPolicy, LevelPolicy


def queue_of(
    *rows: int,
    max_batch_size: int = 8,
    delay_s: float = 0.0,
    preferred: tuple[int, ...] = (),
    shapes: str = "",
) -> BatchQueue[int]:
    """A queue with one request a number, request i arrived at second i * 0.001."""
    policy = BatchPolicy(
        max_batch_size=max_batch_size,
        max_queue_delay_s=delay_s,
        preferred_batch_sizes=preferred,
        level=LevelPolicy(max_queue_size=64),
    )
    queue: BatchQueue[int] = BatchQueue(policy)
    for index, count in enumerate(rows):
        shape = shapes[index] if shapes else "same"
        queue.push(
            Queued(
                payload=index,
                rows=count,
                arrived_s=index * 0.001,
                deadline_s=index + 10.0,
                shape_key=shape,
            )
        )
    return queue


def payloads(decision: object) -> list[int]:
    assert isinstance(decision, Run)
    return [item.payload for item in decision.batch]


def test_an_empty_queue_is_idle() -> None:
    assert queue_of().decide(now_s=1.0) == Idle()


def test_without_a_delay_everything_that_fits_leaves_at_once() -> None:
    queue = queue_of(1, 2, 1)

    assert payloads(queue.decide(now_s=0.01)) == [0, 1, 2]
    assert len(queue) == 0


def test_a_batch_never_exceeds_the_maximum() -> None:
    queue = queue_of(4, 3, 2)

    assert payloads(queue.decide(now_s=0.01)) == [0, 1]
    assert payloads(queue.decide(now_s=0.01)) == [2]


def test_a_part_batch_waits_until_its_oldest_request_is_one_delay_old() -> None:
    queue = queue_of(1, 1, delay_s=0.5)

    assert queue.decide(now_s=0.1) == Wait(until_s=0.5, reason="for more rows")
    assert payloads(queue.decide(now_s=0.5)) == [0, 1]


def test_a_full_batch_does_not_wait() -> None:
    queue = queue_of(4, 4, 1, delay_s=0.5)

    assert payloads(queue.decide(now_s=0.1)) == [0, 1]


def test_the_largest_preferred_size_that_can_be_reached_leaves_at_once() -> None:
    queue = queue_of(1, 1, 1, 1, 1, delay_s=0.5, preferred=(2, 4))

    assert payloads(queue.decide(now_s=0.01)) == [0, 1, 2, 3]
    assert queue.decide(now_s=0.01) == Wait(until_s=0.504, reason="for more rows")


def test_another_shape_closes_the_batch_and_keeps_its_place() -> None:
    queue = queue_of(1, 1, 1, delay_s=0.5, shapes="aab")

    assert payloads(queue.decide(now_s=0.01)) == [0, 1]
    assert queue.decide(now_s=0.01) == Wait(until_s=0.502, reason="for more rows")


def test_expired_requests_leave_the_queue_and_are_told() -> None:
    queue = queue_of(1, 1, 1)

    decision = queue.decide(now_s=11.0)

    assert payloads(decision) == [2]
    assert [(drop.item.payload, drop.error().message) for drop in decision.dropped] == [
        (0, "Request timeout expired: the deadline passed while it was queued"),
        (1, "Request timeout expired: the deadline passed while it was queued"),
    ]


def test_a_full_queue_refuses_with_its_size() -> None:
    queue = queue_of(*[1] * 64)

    with pytest.raises(Overloaded, match=r"Exceeds maximum queue size \(64\)"):
        queue.push(Queued(payload=65, rows=1, arrived_s=0.0, deadline_s=1.0))


def brute_force(rows: list[int], shapes: list[int], maximum: int, preferred: set[int]) -> int:
    """How many requests leave when the delay is over or a preferred size is there; 0 = wait.

    Written from Triton's description, without the queue: look at every prefix.
    """
    prefixes = []
    for count in range(1, len(rows) + 1):
        total = sum(rows[:count])
        if len(set(shapes[:count])) == 1 and (total <= maximum or count == 1):
            prefixes.append((count, total))
        else:
            break
    hits = [(total, count) for count, total in prefixes if total in preferred | {maximum}]
    if hits:
        return max(hits)[1]
    is_closed = len(prefixes) < len(rows)
    return prefixes[-1][0] if is_closed else 0


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 1)), min_size=1, max_size=12),
    st.integers(6, 10),
    st.sets(st.integers(1, 6), max_size=3),
)
def test_decisions_equal_a_search_over_all_prefixes(
    requests: list[tuple[int, int]], maximum: int, preferred: set[int]
) -> None:
    rows = [r for r, _ in requests]
    shapes = [s for _, s in requests]
    queue = queue_of(
        *rows,
        max_batch_size=maximum,
        delay_s=99.0,
        preferred=tuple(preferred),
        shapes="".join(str(s) for s in shapes),
    )

    decision = queue.decide(now_s=1.0)

    expected = brute_force(rows, shapes, maximum, preferred)
    assert (len(decision.batch) if isinstance(decision, Run) else 0) == expected


@given(st.lists(st.integers(1, 8), max_size=40))
def test_every_request_leaves_exactly_once_and_in_order(rows: list[int]) -> None:
    queue = queue_of(*rows)
    seen: list[int] = []

    while isinstance(decision := queue.decide(now_s=1.0), Run):
        assert decision.rows <= 8
        seen += [item.payload for item in decision.batch]

    assert seen == list(range(len(rows)))


@pytest.mark.parametrize(("waited_s", "leaves_s"), [(0.0, 12.0), (1.5, 10.5)])
def test_what_a_request_waited_elsewhere_counts_for_its_timeout(
    waited_s: float, leaves_s: float
) -> None:
    policy = BatchPolicy(
        max_batch_size=8, max_queue_delay_s=60.0, level=LevelPolicy(default_timeout_s=2.0)
    )
    queue: BatchQueue[int] = BatchQueue(policy)
    queue.push(Queued(payload=0, rows=1, arrived_s=10.0, waited_s=waited_s))

    before, after = queue.decide(now_s=leaves_s - 0.01), queue.decide(now_s=leaves_s + 0.01)

    assert isinstance(before, Wait)
    assert before.until_s == leaves_s
    assert isinstance(after, Idle)
    assert [drop.is_deadline for drop in after.dropped] == [False]


def test_a_callers_own_timeout_is_counted_from_where_it_began_to_wait() -> None:
    level = LevelPolicy(default_timeout_s=5.0, allow_timeout_override=True)
    policy = BatchPolicy(max_batch_size=8, max_queue_delay_s=60.0, level=level)
    queue: BatchQueue[int] = BatchQueue(policy)
    # It asked for 2 s, 1.5 of which it waited at the door.
    queue.push(Queued(payload=0, rows=1, arrived_s=10.0, deadline_s=10.5, waited_s=1.5))

    decision = queue.decide(now_s=10.0)

    assert isinstance(decision, Wait)
    assert decision.until_s == 10.5
