"""The queue's rules written as plainly as can be: lists, searched and sorted anew each time."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from cluster.scheduling.decision import Queued
from cluster.scheduling.policy import BatchPolicy, LevelPolicy


@dataclass(kw_only=True, eq=False)
class Waiting:
    item: Queued[int]
    level: int
    expires_s: float
    is_late: bool = False


@dataclass(kw_only=True)
class ReferenceQueue:
    """One lane. `decide` gives the payloads to run ([] to wait) and those dropped."""

    policy: BatchPolicy
    waiting: list[Waiting] = field(default_factory=list)
    served: dict[tuple[int, str], float] = field(default_factory=dict)
    turn: dict[int, float] = field(default_factory=dict)
    order: dict[tuple[int, bool, str], int] = field(default_factory=dict)
    num_listed: int = 0

    def level_policy(self, level: int) -> LevelPolicy:
        return self.policy.levels.get(level, self.policy.level)

    def push(self, item: Queued[int]) -> bool:
        level = item.priority
        if not 1 <= level <= max(1, self.policy.priority_levels):
            level = self.policy.default_priority_level or 1
        policy = self.level_policy(level)
        size = sum(entry.level == level for entry in self.waiting)
        if policy.max_queue_size and size >= policy.max_queue_size:
            return False
        timeout_s = policy.default_timeout_s
        if policy.allow_timeout_override and timeout_s < inf:
            timeout_s = min(timeout_s, item.deadline_s - item.arrived_s)
        self._lift(level, item.tenant)
        self._add(Waiting(item=item, level=level, expires_s=item.arrived_s + timeout_s))
        return True

    def decide(self, now_s: float) -> tuple[list[int], set[int]]:
        dropped = [entry for entry in self.waiting if entry.item.deadline_s <= now_s]
        self._drop(dropped)
        late = [e for e in self.waiting if not e.is_late and e.expires_s <= now_s]
        for entry in sorted(late, key=lambda e: e.expires_s):
            if self.level_policy(entry.level).timeout_action == "reject":
                self._drop([entry])
                dropped.append(entry)
            else:
                self.waiting.remove(entry)
                entry.is_late = True
                self._add(entry)
        batch = self._batch(self._in_turn(), now_s)
        for entry in batch:
            key = entry.level, entry.item.tenant
            self.turn[entry.level] = max(self.turn.get(entry.level, 0.0), self.served[key])
            self.served[key] += entry.item.rows
            self._drop([entry])
        return [e.item.payload for e in batch], {e.item.payload for e in dropped}

    def _batch(self, entries: list[Waiting], now_s: float) -> list[Waiting]:
        if not entries:
            return []
        limit = self.policy.max_batch_size
        fitting: list[Waiting] = []
        for entry in entries:
            rows = sum(e.item.rows for e in fitting) + entry.item.rows
            is_same = not fitting or entry.item.shape_key == fitting[0].item.shape_key
            if fitting and (rows > limit or not is_same):
                break
            fitting.append(entry)
        for count in range(len(fitting), 0, -1):
            rows = sum(e.item.rows for e in fitting[:count])
            if rows >= limit or rows in self.policy.preferred_batch_sizes:
                return fitting[:count]
        oldest_s = min(e.item.arrived_s for e in fitting)
        is_due = oldest_s + self.policy.max_queue_delay_s <= now_s
        return fitting if is_due or len(fitting) < len(entries) else []

    def _in_turn(self) -> list[Waiting]:
        found: list[Waiting] = []
        for level in range(1, max(1, self.policy.priority_levels) + 1):
            for is_late in (False, True):
                tier = [e for e in self.waiting if (e.level, e.is_late) == (level, is_late)]
                counters = {e.item.tenant: self.served[level, e.item.tenant] for e in tier}
                while tier:
                    entry = min(
                        tier,
                        key=lambda e: (
                            counters[e.item.tenant],
                            self.order[e.level, e.is_late, e.item.tenant],
                            tier.index(e),
                        ),
                    )
                    tier.remove(entry)
                    counters[entry.item.tenant] += entry.item.rows
                    found.append(entry)
        return found

    def _add(self, entry: Waiting) -> None:
        key = entry.level, entry.is_late, entry.item.tenant
        if not any((e.level, e.is_late, e.item.tenant) == key for e in self.waiting):
            self.num_listed += 1
            self.order[key] = self.num_listed
        self.waiting.append(entry)

    def _lift(self, level: int, tenant: str) -> None:
        mine = [e for e in self.waiting if e.level == level]
        if not mine:
            self.served = {key: v for key, v in self.served.items() if key[0] != level}
            self.turn[level] = 0.0
        if not any(e.item.tenant == tenant for e in mine):
            before = self.served.get((level, tenant), 0.0)
            self.served[level, tenant] = max(before, self.turn.get(level, 0.0))

    def _drop(self, entries: list[Waiting]) -> None:
        for entry in entries:
            self.waiting.remove(entry)
