"""Whether a batch is so cheap that handing it to a thread would cost more than running it."""

from __future__ import annotations

from bisect import bisect_left

from cluster.scheduling.batch_cost import grain

INLINE_S = 0.0003
"""The longest batch that may hold up the loop that serves the sockets. A hand-over to the engine's
thread and back costs 0.1 to 0.2 ms and two switches of Python's lock (measured on 2 cores)."""

FALL_GAIN = 0.5
RISE_GAIN = 0.02
"""What a batch costs when nothing disturbs it: a cheaper run is believed at once, a dearer one only
when dozens agree. Most of those were interrupted, and a mean that believed them kept all batches
in the thread, where they are interrupted more."""


WAITS_S = 0.02
"""A batch that takes so long of the loop, though it was to be cheap, waits for something that is
not the processor: another server, a lock, a clock. Its thread's seconds do not show it."""

NUM_WAITS = 2
"""In a row, as one of them may have been interrupted for so long."""

NUM_ELSEWHERE = 1000
"""Batches that run in the engine's thread then, until one may show whether it still waits."""


class UndisturbedCost:
    """Rows -> seconds of one thread, from what batches were seen to take."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._rows: list[int] = []
        self._num_waits = 0
        self._num_elsewhere = 0

    def held_up(self, seconds: float) -> None:
        """A batch that was run in the loop held it up for so long, by the clock on the wall."""
        if seconds < WAITS_S:
            self._num_waits = 0
            return
        self._num_waits += 1
        if self._num_waits >= NUM_WAITS:
            self._num_elsewhere = NUM_ELSEWHERE

    def observe(self, rows: int, seconds: float) -> None:
        """A batch of `rows` took so long."""
        if self._num_elsewhere:
            self._num_elsewhere -= 1
        size = grain(rows)
        known = self._seconds.get(size)
        if known is None:
            self._seconds[size] = seconds
            self._rows = sorted(self._seconds)
        else:
            gain = FALL_GAIN if seconds < known else RISE_GAIN
            self._seconds[size] = known + gain * (seconds - known)

    def is_cheap(self, rows: int) -> bool:
        """Only what was measured counts, for this size or the next larger one: nothing runs in the
        loop on a guess, nor what was seen to wait there."""
        if self._num_elsewhere:
            return False
        at = bisect_left(self._rows, rows)
        return at < len(self._rows) and self._seconds[self._rows[at]] <= INLINE_S
