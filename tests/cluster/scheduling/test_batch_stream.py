from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.scheduling.batch_stream import BatchStreamCore


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


@pytest.mark.parametrize(("size", "timeout_s"), [(0, 1.0), (1, -1.0)])
def test_impossible_sizes_and_timeouts_are_refused(size: int, timeout_s: float) -> None:
    with pytest.raises(ValueError, match="batch stream needs"):
        BatchStreamCore(size, timeout_s)
