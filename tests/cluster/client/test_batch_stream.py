from __future__ import annotations

import time
from collections.abc import Sequence
from queue import Queue

import pytest

from cluster.client.batch_stream import BatchStream


def doubled(items: Sequence[int]) -> list[int]:
    return [2 * item for item in items]


def test_process_gives_none_until_the_batch_is_full() -> None:
    with BatchStream(doubled, max_batch_size=3, timeout_ms=1e6, clock=lambda: 0.0) as s:
        assert [s.process(n) for n in (1, 2, 3, 4)] == [None, None, [2, 4, 6], None]
        assert s.flush() == [8]
        assert s.flush() is None


def test_the_timeout_fires_without_new_input() -> None:
    found: Queue[Sequence[int]] = Queue()
    with BatchStream(
        doubled, max_batch_size=8, timeout_ms=1, clock=time.monotonic, on_results=found.put
    ) as stream:
        assert stream.process(5) is None

        assert found.get(timeout=10) == [10]


def test_closing_gives_what_is_left_and_refuses_what_comes_later() -> None:
    stream = BatchStream(doubled, max_batch_size=8, timeout_ms=1e6, clock=lambda: 0.0)
    stream.process(1)

    assert stream.close() == [2]
    assert stream.close() is None
    with pytest.raises(ValueError, match="closed"):
        stream.process(2)


def test_what_the_computation_raises_reaches_the_caller_once_and_the_stream_goes_on() -> None:
    def odd(items: Sequence[int]) -> list[float]:
        return [1 / item for item in items]

    with BatchStream(odd, max_batch_size=1, timeout_ms=1e6, clock=lambda: 0.0) as stream:
        with pytest.raises(ZeroDivisionError):
            stream.process(0)
        assert stream.process(2) == [0.5]


def test_results_that_do_not_match_the_items_are_an_error() -> None:
    with BatchStream(
        lambda items: [1], max_batch_size=2, timeout_ms=1e6, clock=lambda: 0.0
    ) as stream:
        stream.process(1)
        with pytest.raises(ValueError, match="1 results for 2 items"):
            stream.process(2)


def test_what_on_results_raises_reaches_the_next_caller_and_the_timer_goes_on() -> None:
    found: Queue[Sequence[int]] = Queue()
    failures = ["the user's own words"]

    def told(results: Sequence[int]) -> None:
        found.put(results)
        if failures:
            raise RuntimeError(failures.pop())

    with BatchStream(
        doubled, max_batch_size=8, timeout_ms=1, clock=time.monotonic, on_results=told
    ) as stream:
        stream.process(1)
        assert found.get(timeout=60) == [2]
        with pytest.raises(RuntimeError, match="own words"):
            stream.flush()

        stream.process(2)
        assert found.get(timeout=60) == [4]


@pytest.mark.parametrize("size", [1, 8])
def test_on_results_may_close_the_stream(size: int) -> None:
    """Of size 1 it is called by `process` itself, else in the timer's thread."""
    found: Queue[Sequence[int]] = Queue()
    streams: list[BatchStream[int, int]] = []

    def told(results: Sequence[int]) -> None:
        streams[0].close()
        found.put(results)

    streams.append(
        BatchStream(
            doubled, max_batch_size=size, timeout_ms=1, clock=time.monotonic, on_results=told
        )
    )
    streams[0].process(1)

    assert found.get(timeout=60) == [2]
    assert streams[0].close() is None
    with pytest.raises(ValueError, match="closed"):
        streams[0].process(2)
    assert not streams[0]._timer.is_alive()
