"""Continuous input in batches: `scheduling.batch_stream` with a lock, a clock and a computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from threading import Condition, Thread
from typing import Generic, TypeVar

from cluster.scheduling.batch_stream import BatchStreamCore

T = TypeVar("T")
R = TypeVar("R")


class BatchStream(Generic[T, R]):
    """`process` gives None until a batch is computed, then the results of all that were computed
    since, in the order of the items. The timeout fires without new input: a thread waits for it
    and computes; `on_results`, if given, is told at once instead of the next `process`.

    Safe to use from several threads; results keep the order in which the items were taken.
    `on_results` may use the stream, also close it.
    Raises (from `process`, `flush` and `close`): what `compute` or `on_results` raised, once.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[T]], Sequence[R]],
        *,
        max_batch_size: int,
        timeout_ms: float,
        clock: Callable[[], float],
        on_results: Callable[[Sequence[R]], None] | None = None,
        check: Callable[[T], object] = lambda item: None,
    ) -> None:
        """`clock` gives monotonic seconds (`time.monotonic`). `check` raises for an item that does
        not fit, before it is taken: a batch is computed as one, and would fail as one."""
        self._core: BatchStreamCore[T] = BatchStreamCore(max_batch_size, timeout_ms / 1e3)
        self._compute = compute
        self._clock = clock
        self._on_results = on_results
        self._check = check
        self._results: list[R] = []
        self._error: BaseException | None = None
        self._is_closed = False
        # Held while computing too: batches run one after the other, so results stay in order.
        self._changed = Condition()
        self._is_running = False
        self._timer = Thread(target=self._fire, name="batch-stream", daemon=True)
        self._timer.start()

    def __enter__(self) -> BatchStream[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def process(self, item: T) -> list[R] | None:
        """Raises: ValueError when the stream is closed; what `check` raises, and then the item is
        not taken."""
        self._check(item)
        with self._changed:
            if self._is_closed:
                raise ValueError("the batch stream is closed")
            self._run(self._core.add(item, self._clock()))
            self._changed.notify()
            return self._taken()

    def flush(self) -> list[R] | None:
        """Compute what is collected now, without waiting for more."""
        with self._changed:
            self._run(self._core.take())
            return self._taken()

    def close(self) -> list[R] | None:
        """Flush and end; what comes later is refused. Closing twice does nothing."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
            # By `on_results`, which holds the lock: the timer's thread ends when that returns.
            is_inside = self._is_running
        if self._timer.is_alive() and not is_inside:
            self._timer.join()
        return self.flush()

    def _run(self, batch: list[T] | None) -> None:
        if batch is None:
            return
        was_running, self._is_running = self._is_running, True
        try:
            results = list(self._compute(batch))
            if len(results) != len(batch):
                raise ValueError(f"compute gave {len(results)} results for {len(batch)} items")
            if self._on_results is not None:
                self._on_results(results)
            else:
                self._results += results
        except Exception as error:
            # The timer's thread has no caller: whoever comes next is told.
            self._error = error
        finally:
            self._is_running = was_running

    def _taken(self) -> list[R] | None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        results, self._results = self._results, []
        return results or None

    def _fire(self) -> None:
        with self._changed:
            while not self._is_closed:
                self._run(self._core.poll(self._clock()))
                due_s = self._core.due_s
                self._changed.wait(None if due_s == inf else max(0.0, due_s - self._clock()))
