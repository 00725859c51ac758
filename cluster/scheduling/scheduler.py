"""One replica's decisions together: who is admitted, what runs when, and what was learned from it.

A replica's loop drives it with its own clock, the simulator with virtual time.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from cluster.config.variant import BatchingConfig
from cluster.scheduling.admission import Admit, Load, Reject, admit
from cluster.scheduling.batch_cost import CostBook
from cluster.scheduling.batch_limit import AdaptiveLimits, BatchLimit
from cluster.scheduling.batch_queue import BatchQueue
from cluster.scheduling.decision import Idle, Queued, Run, Wait
from cluster.scheduling.inline import UndisturbedCost
from cluster.scheduling.policy import policy_of

P = TypeVar("P")


class Scheduler(Generic[P]):
    """One engine, one batch at a time. Calls for one request, in order: `admit`, `arrived`,
    `push`; for a batch: `decide` until it answers `Run`, then `finished`."""

    def __init__(self, config: BatchingConfig, *, is_batched: bool = True) -> None:
        self.policy = policy_of(config, is_batched=is_batched)
        self.costs = CostBook()
        self._queue: BatchQueue[P] = BatchQueue(self.policy, self.costs)
        self._limits: AdaptiveLimits | None = None
        if config.mode == "adaptive":
            target_s = None if config.latency_target_ms is None else config.latency_target_ms / 1e3
            self._limits = AdaptiveLimits(self.policy.max_batch_size, target_s, self.costs)
        self._limit_of = self._limits.rows if self._limits is not None else None
        self._cap_rows = self.policy.max_batch_size
        # Waiting for Python's lock is what running on the spot would spare: it must not count.
        self._computing = UndisturbedCost()
        self._rows_admitted = 0
        # With limits that move, the surest count of batches is one a row.
        self._sure_batch_rows = 1 if self._limits is not None else self.policy.max_batch_size
        self._running: tuple[Hashable, int, float, float] | None = None
        self._is_probe = False
        self._free_since_s = 0.0

    def __len__(self) -> int:
        return len(self._queue)

    def runs_now(self, rows: int) -> bool:
        """Whether so many rows are best run on the spot: nothing waits or runs, nobody is waited
        for, and it takes less time than a queue and a thread would. Tell `ran` what it took."""
        if len(self._queue) or self._running is not None or self._rows_admitted:
            return False
        limit = self.policy.max_batch_size if self._limit_of is None else self._limit_of(None)
        is_small = rows <= limit and not self.policy.max_queue_delay_s
        return is_small and self.is_cheap(rows)

    def is_cheap(self, rows: int) -> bool:
        """Whether such a batch costs less than handing it to the engine's thread does."""
        return self._computing.is_cheap(rows)

    def ran(self, rows: int, seconds: float, cpu_s: float) -> None:
        """A batch was run outside the queue: on the spot, or to warm up."""
        self._computing.observe(rows, cpu_s)
        self._computing.held_up(seconds)
        self.costs.observe(None, rows, seconds)
        if self._limits is not None:
            self._limits.observe(None, rows, seconds)

    def cap(self, rows: int) -> None:
        """No batch is formed with more than `rows` from now on: there is no memory for it."""
        if rows >= self._cap_rows:
            return
        self._cap_rows = rows
        self._sure_batch_rows = min(self._sure_batch_rows, rows)
        limits = self._limits

        def limit_of(lane: Hashable) -> int:
            return rows if limits is None else min(rows, limits.rows(lane))

        self._limit_of = limit_of

    def admit_all(self, *, rows: int, left_s: float) -> bool:
        """Whether requests of so many rows can all be admitted without a closer look: in time
        even behind everything that waits, with every batch as dear as the dearest. One question a
        message instead of one a request; where it is answered no, `admit` is asked for each."""
        ahead = self._queue.rows_waiting + self._rows_admitted + rows
        batches = ahead // self._sure_batch_rows + self._queue.num_lanes() + 2
        if batches * self.costs.dearest_s(self.policy.max_batch_size) > left_s:
            return False
        self._rows_admitted += rows
        return True

    def admit(
        self, now_s: float, *, rows: int, left_s: float, priority: int = 0, tenant: str = ""
    ) -> Admit | Reject:
        """Whether a request can be answered in the time it has left. An admitted one counts as
        waiting until it has `arrived` (its inputs may have to be prepared first)."""
        ahead = self._queue.rows_ahead(priority, tenant, rows) + self._rows_admitted
        running_s = 0.0
        if self._running is not None:
            _, _, started_s, expected_s = self._running
            running_s = max(0.0, started_s + expected_s - now_s)
        limit_of = self._limit_of
        load = Load(
            rows=rows,
            left_s=left_s,
            rows_ahead=ahead,
            running_s=running_s,
            max_batch_size=limit_of(None) if limit_of is not None else self.policy.max_batch_size,
            num_other_lanes=max(0, self._queue.num_lanes() - 1),
            is_idle=ahead == 0 and self._running is None,
        )
        verdict = admit(load, self.costs.curve(None))
        if isinstance(verdict, Admit):
            self._rows_admitted += rows
        return verdict

    def arrived(self, rows: int) -> None:
        """Admitted rows are ready for the queue, or were given up."""
        self._rows_admitted -= rows

    def push(self, item: Queued[P]) -> None:
        """Raises: Overloaded when the request's level is full."""
        self._queue.push(item)

    def withdraw(self, item: Queued[P]) -> bool:
        """Take out a request whose caller is gone. False when it had left already."""
        return self._queue.withdraw(item)

    def decide(self, now_s: float) -> Run[P] | Wait[P] | Idle[P]:
        """What the free engine does now."""
        idle_s = now_s - self._free_since_s
        decision = self._queue.decide(now_s, self._limit_of, idle_s=idle_s)
        if isinstance(decision, Run):
            lane = self._queue.lane_of(decision.batch[0])
            rows = decision.rows
            self._running = lane, rows, now_s, self.costs.curve(lane).mean_s(rows)
            self._is_probe = decision.is_probe
        return decision

    def finished(
        self,
        now_s: float,
        *,
        is_whole: bool = True,
        cpu_s: float | None = None,
        loop_s: float | None = None,
    ) -> None:
        """The batch that `decide` gave is done. `is_whole`: it was computed as one, without
        failures, so that its time says what such a batch takes. `cpu_s`: what it took of that
        without waiting for a core or for Python's lock, if that is known. `loop_s`: how long it
        held up the loop that serves the sockets, if it was run there."""
        assert self._running is not None
        lane, rows, started_s, _ = self._running
        self._running = None
        self._free_since_s = now_s
        if is_whole:
            if cpu_s is not None:
                self._computing.observe(rows, cpu_s)
            learn = self.costs.ease if self._is_probe else self.costs.observe
            learn(lane, rows, now_s - started_s)
            if self._limits is not None:
                self._limits.observe(lane, rows, now_s - started_s)
        if loop_s is not None:
            self._computing.held_up(loop_s)

    @property
    def is_adaptive(self) -> bool:
        """Whether it finds its batch size by itself."""
        return self._limits is not None

    @property
    def cap_rows(self) -> int:
        """The largest batch that there is memory for, as far as is known."""
        return self._cap_rows

    def limits(self) -> dict[Hashable, BatchLimit]:
        """Lane -> the largest batch now, and why. Empty unless the mode is adaptive."""
        return self._limits.now() if self._limits is not None else {}
