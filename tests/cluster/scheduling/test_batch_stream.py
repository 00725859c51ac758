from __future__ import annotations

import time
from collections.abc import Sequence
from queue import Queue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.scheduling.batch_stream import BatchStreamCore, create_batch_stream


@given(
    st.integers(1, 5),
    st.floats(0, 3),
    st.lists(st.floats(0, 2), max_size=40),
)
def test_every_item_leaves_once_in_order_by_size_or_when_the_first_has_waited(
    size: int, timeout_s: float, gaps: list[float]
) -> None:
    core: BatchStreamCore[int] = BatchStreamCore(size, timeout_s)
    came: list[float] = []
    left: list[int] = []
    now_s = 0.0
    for number, gap in enumerate(gaps):
        now_s += gap
        polled = core.poll(now_s) or []
        assert not polled or came[polled[0]] + timeout_s <= now_s
        came.append(now_s)
        added = core.add(number, now_s) or []
        for batch in (polled, added):
            assert len(batch) <= size
            left += batch
        assert len(core) < size
        # Nothing that is kept has waited its time.
        assert core.due_s > now_s

    assert left + (core.take() or []) == list(range(len(gaps)))


def doubled(items: Sequence[int]) -> list[int]:
    return [2 * item for item in items]


def test_process_gives_none_until_the_batch_is_full() -> None:
    with create_batch_stream(doubled, max_batch_size=3, timeout_ms=1e6, clock=lambda: 0.0) as s:
        assert [s.process(n) for n in (1, 2, 3, 4)] == [None, None, [2, 4, 6], None]
        assert s.flush() == [8]
        assert s.flush() is None


def test_the_timeout_fires_without_new_input() -> None:
    found: Queue[Sequence[int]] = Queue()
    with create_batch_stream(
        doubled, max_batch_size=8, timeout_ms=1, clock=time.monotonic, on_results=found.put
    ) as stream:
        assert stream.process(5) is None

        assert found.get(timeout=10) == [10]


def test_closing_gives_what_is_left_and_refuses_what_comes_later() -> None:
    stream = create_batch_stream(doubled, max_batch_size=8, timeout_ms=1e6, clock=lambda: 0.0)
    stream.process(1)

    assert stream.close() == [2]
    assert stream.close() is None
    with pytest.raises(ValueError, match="closed"):
        stream.process(2)


def test_what_the_computation_raises_reaches_the_caller_once_and_the_stream_goes_on() -> None:
    def odd(items: Sequence[int]) -> list[float]:
        return [1 / item for item in items]

    with create_batch_stream(odd, max_batch_size=1, timeout_ms=1e6, clock=lambda: 0.0) as stream:
        with pytest.raises(ZeroDivisionError):
            stream.process(0)
        assert stream.process(2) == [0.5]


def test_results_that_do_not_match_the_items_are_an_error() -> None:
    with create_batch_stream(
        lambda items: [1], max_batch_size=2, timeout_ms=1e6, clock=lambda: 0.0
    ) as stream:
        stream.process(1)
        with pytest.raises(ValueError, match="1 results for 2 items"):
            stream.process(2)


@pytest.mark.parametrize(("size", "timeout_s"), [(0, 1.0), (1, -1.0)])
def test_impossible_sizes_and_timeouts_are_refused(size: int, timeout_s: float) -> None:
    with pytest.raises(ValueError, match="batch stream needs"):
        BatchStreamCore(size, timeout_s)
