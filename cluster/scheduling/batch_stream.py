"""Continuous input in batches: items go in one by one, results come out a batch at a time.

`BatchStreamCore` decides with the time it is given; `BatchStream` adds a lock, a clock of the
caller's and the computing function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class BatchStreamCore(Generic[T]):
    """Collects until `max_batch_size` items are there or the first of them waited `timeout_s`."""

    def __init__(self, max_batch_size: int, timeout_s: float) -> None:
        """Raises: ValueError for a size below 1 or a negative timeout."""
        if max_batch_size < 1 or timeout_s < 0:
            raise ValueError(
                f"a batch stream needs max_batch_size >= 1 and timeout >= 0, "
                f"got {max_batch_size} and {timeout_s}"
            )
        self._max_batch_size = max_batch_size
        self._timeout_s = timeout_s
        self._items: list[T] = []
        self._due_s = inf

    def __len__(self) -> int:
        return len(self._items)

    @property
    def due_s(self) -> float:
        """When what is collected must leave; infinite when nothing is."""
        return self._due_s

    def add(self, item: T, now_s: float) -> list[T] | None:
        """The batch that this item completes, or that is due; else None."""
        if not self._items:
            self._due_s = now_s + self._timeout_s
        self._items.append(item)
        if len(self._items) >= self._max_batch_size:
            return self.take()
        return self.poll(now_s)

    def poll(self, now_s: float) -> list[T] | None:
        """The batch if its timeout is over."""
        return self.take() if self._due_s <= now_s else None

    def take(self) -> list[T] | None:
        """All that is collected, now; None when that is nothing."""
        items, self._items, self._due_s = self._items, [], inf
        return items or None


class BatchStream(Generic[T, R]):
    """`process` gives None until a batch is computed, then the results of all that were computed
    since, in the order of the items. The timeout fires without new input: a thread waits for it
    and computes; `on_results`, if given, is told at once instead of the next `process`.

    Safe to use from several threads; results keep the order in which the items were taken.
    Raises (from `process`, `flush` and `close`): what `compute` raised, once.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[T]], Sequence[R]],
        *,
        max_batch_size: int,
        timeout_ms: float,
        clock: Callable[[], float],
        on_results: Callable[[Sequence[R]], None] | None = None,
    ) -> None:
        """`clock` gives monotonic seconds (`time.monotonic`)."""
        self._core: BatchStreamCore[T] = BatchStreamCore(max_batch_size, timeout_ms / 1e3)
        self._compute = compute
        self._clock = clock
        self._on_results = on_results
        self._results: list[R] = []
        self._error: BaseException | None = None
        self._is_closed = False
        # Held while computing too: batches run one after the other, so results stay in order.
        self._changed = Condition()
        self._timer = Thread(target=self._fire, name="batch-stream", daemon=True)
        self._timer.start()

    def __enter__(self) -> BatchStream[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def process(self, item: T) -> list[R] | None:
        """Raises: ValueError when the stream is closed."""
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
        if self._timer.is_alive():
            self._timer.join()
        return self.flush()

    def _run(self, batch: list[T] | None) -> None:
        if batch is None:
            return
        try:
            results = list(self._compute(batch))
            if len(results) != len(batch):
                raise ValueError(f"compute gave {len(results)} results for {len(batch)} items")
        except Exception as error:
            # The timer's thread has no caller: whoever comes next is told.
            self._error = error
            return
        if self._on_results is not None:
            self._on_results(results)
        else:
            self._results += results

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


def create_batch_stream(
    compute: Callable[[Sequence[T]], Sequence[R]],
    *,
    max_batch_size: int,
    timeout_ms: float,
    clock: Callable[[], float],
    on_results: Callable[[Sequence[R]], None] | None = None,
) -> BatchStream[T, R]:
    """A stream that computes with `compute`: a batch in, as many results out, in order."""
    return BatchStream(
        compute,
        max_batch_size=max_batch_size,
        timeout_ms=timeout_ms,
        clock=clock,
        on_results=on_results,
    )
