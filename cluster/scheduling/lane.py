"""Requests that may share a batch, in the order of their tenants' turns and of arrival."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

from cluster.scheduling.decision import Queued
from cluster.scheduling.shares import Shares

P = TypeVar("P")

PATIENCE_S = 1.0
"""A lane's head counts as at least this urgent, counted from its arrival, whatever its deadline:
lanes of far deadlines are passed over for a second at most."""

_Entry = tuple[float, int, "Shelf[P]"]


class Shelf(Generic[P]):
    """One tenant's requests in one lane, first come, first served."""

    __slots__ = ("items", "lane", "tenant")

    def __init__(self, lane: Lane[P], tenant: str) -> None:
        self.lane = lane
        self.tenant = tenant
        # Taking any item out is O(1) and leaves nothing behind, which a deque cannot do.
        self.items: OrderedDict[Queued[P], None] = OrderedDict()

    def head(self) -> Queued[P]:
        return next(iter(self.items))


class Lane(Generic[P]):
    """O(log tenants) per request; O(1) with one tenant."""

    def __init__(self, tier: Tier[P], key: Hashable) -> None:
        self.tier = tier
        self.key = key
        self.rows = 0
        self._shelves: dict[str, Shelf[P]] = {}
        # (counter when listed, order of listing, shelf): counters only rise, so an entry that is
        # out of date is met too early, never too late, and is put right when it is met.
        self._turns: list[_Entry[P]] = []
        self._num_listed = 0

    def add(self, item: Queued[P], tenant: str) -> None:
        shelf = self._shelves.get(tenant)
        if shelf is None:
            shelf = self._shelves[tenant] = Shelf(self, tenant)
            self._list(shelf)
        shelf.items[item] = None
        item.shelf = shelf
        self.rows += item.rows

    def remove(self, shelf: Shelf[P], items: Sequence[Queued[P]], rows: int) -> None:
        """`items` are of `shelf` and have `rows` rows together."""
        for item in items:
            del shelf.items[item]
            item.shelf = None
        self.rows -= rows
        if not shelf.items:
            del self._shelves[shelf.tenant]

    def __bool__(self) -> bool:
        return bool(self._shelves)

    def urgency(self) -> tuple[float, float]:
        """Of the request whose turn it is: its tenant's counter, then when it must be served."""
        if len(self._shelves) == 1:
            shelf = next(iter(self._shelves.values()))
            counter = self.tier.shares.served(shelf.tenant)
        else:
            self._correct_top()
            counter, _, shelf = self._turns[0]
        head = shelf.head()
        return counter, min(head.deadline_s, head.arrived_s + PATIENCE_S)

    def visit(self, offer: Callable[[Queued[P]], bool]) -> bool:
        """Show the requests in turn, as if each one shown were served, until `offer` is false.
        Returns whether all were shown. Changes nothing."""
        if len(self._shelves) == 1:
            shelf = next(iter(self._shelves.values()))
            return all(map(offer, shelf.items))
        return self._visit_tenants(offer)

    def _visit_tenants(self, offer: Callable[[Queued[P]], bool]) -> bool:
        met: list[_Entry[P]] = []
        going: list[tuple[float, int, Iterator[Queued[P]], Queued[P]]] = []
        try:
            while True:
                self._correct_top()
                if self._turns and (not going or self._turns[0][:2] < going[0][:2]):
                    entry = heapq.heappop(self._turns)
                    met.append(entry)
                    counter, order, shelf = entry
                    items = iter(shelf.items)
                    item = next(items)
                elif going:
                    counter, order, items, item = heapq.heappop(going)
                else:
                    return True
                if not offer(item):
                    return False
                following = next(items, None)
                if following is not None:
                    counter += item.weight or item.rows
                    heapq.heappush(going, (counter, order, items, following))
        finally:
            for entry in met:
                heapq.heappush(self._turns, entry)

    def _correct_top(self) -> None:
        """Afterwards the first entry, if any, is of a shelf that is there, at its true counter."""
        turns = self._turns
        while turns:
            counter, order, shelf = turns[0]
            if self._shelves.get(shelf.tenant) is not shelf:
                heapq.heappop(turns)
                continue
            served = self.tier.shares.served(shelf.tenant)
            if served <= counter:
                return
            heapq.heapreplace(turns, (served, order, shelf))

    def _list(self, shelf: Shelf[P]) -> None:
        self._num_listed += 1
        entry = (self.tier.shares.served(shelf.tenant), self._num_listed, shelf)
        heapq.heappush(self._turns, entry)
        # With one tenant nobody looks at the turns: what is gone must not pile up.
        if len(self._turns) > 2 * len(self._shelves) + 16:
            self._turns = [
                (self.tier.shares.served(kept.tenant), order, kept)
                for _, order, kept in self._turns
                if self._shelves.get(kept.tenant) is kept
            ]
            heapq.heapify(self._turns)


class Tier(Generic[P]):
    """Lanes of one urgency: a level's requests in time, or those of it that waited too long."""

    def __init__(
        self, shares: Shares, *, is_late: bool, has_shape_lanes: bool, is_fair: bool
    ) -> None:
        self.shares = shares
        self.is_late = is_late
        self.lanes: dict[Hashable, Lane[P]] = {}
        self.num_waiting = 0
        self.rows = 0
        self._has_shape_lanes = has_shape_lanes
        self._is_fair = is_fair

    def add(self, item: Queued[P]) -> None:
        key = item.shape_key if self._has_shape_lanes else None
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane(self, key)
        tenant = item.tenant if self._is_fair else ""
        self.shares.join(tenant, item.rows)
        lane.add(item, tenant)
        self.num_waiting += 1
        self.rows += item.rows

    def remove(self, shelf: Shelf[P], items: Sequence[Queued[P]], *, is_served: bool) -> None:
        """`items` lie on one shelf of this tier: what can be done once for all of them is."""
        count = len(items)
        rows = sum([item.rows for item in items])
        if is_served:
            weights = [item.weight or item.rows for item in items]
            self.shares.charge(shelf.tenant, sum(weights), weights[-1])
        lane = shelf.lane
        lane.remove(shelf, items, rows)
        self.shares.leave(shelf.tenant, count, rows)
        if not lane and lane.key is not None:
            del self.lanes[lane.key]
        self.num_waiting -= count
        self.rows -= rows

    def lane_keys(self) -> list[Hashable]:
        """Of the lanes that hold something, the most urgent first."""
        if len(self.lanes) == 1:
            return list(self.lanes)
        filled = [lane for lane in self.lanes.values() if lane]
        return [lane.key for lane in sorted(filled, key=Lane.urgency)]
