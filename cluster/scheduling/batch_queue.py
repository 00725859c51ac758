"""The queue of one replica, and when a batch leaves it.

Triton's semantics (model configuration, "dynamic batching"): a batch is decided when the engine is
free, never earlier. If a preferred size can be reached, the largest reachable one leaves at once;
otherwise the batch waits until its oldest request has waited `max_queue_delay_s`, then leaves with
what is there. A request that does not fit (too many rows, another shape) closes the batch.

Levels are strict: a batch starts with the first level that holds anything and is filled up from
the next ones. Beyond Triton: shapes may queue in lanes of their own, tenants of a level take turns,
and with a cost curve nothing is run that cannot be done by its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from itertools import groupby
from math import inf
from operator import attrgetter
from typing import Generic, TypeVar

from cluster.errors import Overloaded
from cluster.scheduling.agenda import Agenda
from cluster.scheduling.batch_cost import CostBook
from cluster.scheduling.decision import Dropped, Idle, Queued, Run, Wait
from cluster.scheduling.draft import Draft
from cluster.scheduling.lane import Tier
from cluster.scheduling.policy import BatchPolicy
from cluster.scheduling.shares import Shares

P = TypeVar("P")

_shelf = attrgetter("shelf")

PROBE_EVERY = 16
PROBE_IDLE = 2.0
"""When everything is refused for what batches are thought to cost, one is run in spite of it, and
believed if it was quicker (`BatchCost.ease`): a curve that a slow spell has spoilt would otherwise
never be put right. That is each sixteenth, or one when the engine has been idle for twice what it
is thought to cost. Not every one: a model that is that slow would work for nobody, before those who
have the time."""


class BatchQueue(Generic[P]):
    """Time comes in as an argument (seconds, any monotonic clock).

    A push and the request's part in a decision cost O(log n) at most; in the usual case (one
    level, one tenant, deadlines in order of arrival) O(1).
    """

    def __init__(self, policy: BatchPolicy, costs: CostBook | None = None) -> None:
        self.policy = policy
        self._costs = costs
        self._num_waiting = 0
        self.rows_waiting = 0
        self._num_refused = 0
        num_levels = max(1, policy.priority_levels)
        self._levels = [policy.levels.get(n, policy.level) for n in range(1, num_levels + 1)]
        # Two a level: its requests in time, then those that waited longer than they should.
        self._tiers: list[Tier[P]] = []
        for _ in range(num_levels):
            shares = Shares()
            for is_late in (False, True):
                tier: Tier[P] = Tier(
                    shares,
                    is_late=is_late,
                    has_shape_lanes=policy.has_shape_lanes,
                    is_fair=policy.is_fair,
                )
                self._tiers.append(tier)
        self._sizes = frozenset(policy.preferred_batch_sizes)
        self._deadlines: Agenda[P] = Agenda(lambda item: item.shelf is not None)
        self._timeouts: Agenda[P] = Agenda(self._is_in_time)

    def __len__(self) -> int:
        return self._num_waiting

    def push(self, item: Queued[P]) -> None:
        """Raises: Overloaded when the request's level is at its `max_queue_size`."""
        index = self.policy.level_of(item.priority) - 1
        level = self._levels[index]
        tier = self._tiers[2 * index]
        size = tier.num_waiting + self._tiers[2 * index + 1].num_waiting
        if level.max_queue_size and size >= level.max_queue_size:
            raise Overloaded(
                f"Exceeds maximum queue size ({level.max_queue_size})",
                queue_size=size,
                retry_after_s=1,
            )
        tier.add(item)
        self._num_waiting += 1
        self.rows_waiting += item.rows
        self._deadlines.add(item.deadline_s, item, self._num_waiting)
        if level.default_timeout_s < inf:
            began_s = item.arrived_s - item.waited_s
            timeout_s = level.timeout_s(item.deadline_s - began_s)
            self._timeouts.add(began_s + timeout_s, item, self._num_waiting)

    def withdraw(self, item: Queued[P]) -> bool:
        """Take out a request whose caller is gone. False when it had left already."""
        if item.shelf is None:
            return False
        self._remove(item)
        return True

    def lane_of(self, item: Queued[P]) -> Hashable:
        """The lane that a request queues (or queued) in."""
        return item.shape_key if self.policy.has_shape_lanes else None

    def num_lanes(self) -> int:
        """Lanes that hold something, in the fullest tier."""
        if not self.policy.has_shape_lanes:
            return min(1, self._num_waiting)
        return max(len(tier.lanes) for tier in self._tiers)

    def rows_ahead(self, priority: int, tenant: str, rows: int) -> int:
        """About how many waiting rows are served before a new request of so many.

        All of the levels above; of its own level no more than there is, and no more than the
        tenants' turns let pass before it.
        """
        index = self.policy.level_of(priority) - 1
        above = sum(tier.rows for tier in self._tiers[: 2 * index])
        own = self._tiers[2 * index]
        if not self.policy.is_fair:
            return above + own.rows
        shares = own.shares
        turns = max(1, shares.num_waiting_tenants + (shares.waiting_rows(tenant) == 0))
        passed = (shares.waiting_rows(tenant) + rows) * turns - rows
        return above + min(own.rows, passed)

    def decide(
        self,
        now_s: float,
        limit_of: Callable[[Hashable], int] | None = None,
        *,
        idle_s: float = 0.0,
    ) -> Run[P] | Wait[P] | Idle[P]:
        """What a free engine does now. `Run` removes its requests from the queue.

        `limit_of` a lane: rows of a batch now, where they should be fewer than `max_batch_size`.
        `idle_s`: for how long the engine has been free.
        What is `dropped` has left the queue and waits for its answer.
        """
        if not self._num_waiting:
            return Idle()
        dropped = self._expire(now_s)
        while self._num_waiting:
            decision = self._look(now_s, limit_of, dropped, idle_s)
            if decision is not None:
                return decision
        return Idle(dropped=tuple(dropped))

    def _look(
        self,
        now_s: float,
        limit_of: Callable[[Hashable], int] | None,
        dropped: list[Dropped[P]],
        idle_s: float,
    ) -> Run[P] | Wait[P] | None:
        """None when all that was looked at had to be refused: then look at the rest."""
        first = 0
        while not self._tiers[first].num_waiting:
            first += 1
        delay_s = self.policy.max_queue_delay_s
        until_s = inf
        for key in self._tiers[first].lane_keys():
            limit = self.policy.max_batch_size
            if limit_of is not None:
                limit = min(limit, limit_of(key))
            draft = self._draft(first, key, now_s, limit)
            if draft.hopeless and self._is_probe_due(draft, key, idle_s):
                probe = self._run([draft.hopeless[0][0]], "to measure the cost again", dropped)
                return replace(probe, is_probe=True)
            dropped += [self._refuse(item, reason) for item, reason in draft.hopeless]
            if draft.items:
                count, reason = draft.close(delay_s)
                if count:
                    return self._run(draft.items[:count], reason, dropped)
                until_s = min(until_s, draft.leaves_s(delay_s))
        if until_s == inf:
            return None
        until_s = min(until_s, self._deadlines.next_s(), self._timeouts.next_s())
        return Wait(until_s=until_s, reason="for more rows", dropped=tuple(dropped))

    def _draft(self, first: int, key: Hashable, now_s: float, limit: int) -> Draft[P]:
        curve = self._costs.curve(key) if self._costs is not None else None
        draft: Draft[P] = Draft(now_s=now_s, limit=limit, sizes=self._sizes, curve=curve)
        for tier in self._tiers[first:]:
            lane = tier.lanes.get(key)
            if lane:
                draft.backlog_rows += lane.rows
                if not lane.visit(draft.offer):
                    break
        return draft

    def _is_probe_due(self, draft: Draft[P], lane: Hashable, idle_s: float) -> bool:
        if draft.items:
            self._num_refused = 0
            return False
        self._num_refused += len(draft.hopeless)
        assert self._costs is not None
        cost_s = self._costs.curve(lane).safe_s(draft.hopeless[0][0].rows)
        if self._num_refused < PROBE_EVERY and idle_s < PROBE_IDLE * cost_s:
            return False
        self._num_refused = 0
        return True

    def _run(self, batch: list[Queued[P]], reason: str, dropped: list[Dropped[P]]) -> Run[P]:
        for shelf, items in groupby(batch, key=_shelf):
            assert shelf is not None
            shelf.lane.tier.remove(shelf, list(items), is_served=True)
        self._num_waiting -= len(batch)
        self.rows_waiting -= sum([item.rows for item in batch])
        return Run(batch=tuple(batch), reason=reason, dropped=tuple(dropped))

    def _refuse(self, item: Queued[P], reason: str) -> Dropped[P]:
        self._remove(item)
        return Dropped(item=item, reason=reason)

    def _remove(self, item: Queued[P]) -> None:
        assert item.shelf is not None
        item.shelf.lane.tier.remove(item.shelf, (item,), is_served=False)
        self._num_waiting -= 1
        self.rows_waiting -= item.rows

    def _expire(self, now_s: float) -> list[Dropped[P]]:
        """Deadlines end a request; the level's own timeout refuses it or puts it behind."""
        dropped = [
            self._refuse(item, "the deadline passed while it was queued")
            for item in self._deadlines.due(now_s)
        ]
        for item in self._timeouts.due(now_s):
            index = self.policy.level_of(item.priority) - 1
            level = self._levels[index]
            if level.timeout_action == "reject":
                self._remove(item)
                reason = f"the queue of level {index + 1} is left after its timeout"
                dropped.append(Dropped(item=item, reason=reason, is_deadline=False))
            else:
                self._put_behind(item, self._tiers[2 * index + 1])
        return dropped

    def _put_behind(self, item: Queued[P], late: Tier[P]) -> None:
        assert item.shelf is not None
        tenant = item.shelf.tenant
        # Its tenant waits on: counters of the level must not start anew because it moves.
        late.shares.join(tenant, 0)
        self._remove(item)
        late.add(item)
        self._num_waiting += 1
        self.rows_waiting += item.rows
        late.shares.leave(tenant, 1, 0)

    def _is_in_time(self, item: Queued[P]) -> bool:
        """Waiting, and not yet put behind."""
        return item.shelf is not None and not item.shelf.lane.tier.is_late
