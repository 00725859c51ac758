"""Which requests of which sequences share the next batch, and when a sequence begins and ends.

Triton's semantics (model configuration, "sequence batching"): a sequence has a slot from its START
until its END, or until it was idle too long; without a free slot it waits. A batch holds at most
one request of each sequence, so that they run in the order they came. `direct`: a slot is a row of
the batch. `oldest`: slots are many more than rows, and the oldest requests go first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from math import inf
from typing import Generic, TypeVar

from cluster.config.sequences import SequencesConfig
from cluster.config.variant import BatchingConfig
from cluster.errors import InvalidRequest, Overloaded
from cluster.requests import SequenceStep
from cluster.scheduling.decision import Dropped, Idle, Queued, Wait

P = TypeVar("P")

NOT_STARTED = "must specify the START flag on the first request of the sequence"


@dataclass(frozen=True, slots=True, kw_only=True)
class SequencePolicy:
    """`num_slots`: sequences that run at once; `is_direct`: each has a row of its own."""

    is_direct: bool
    num_slots: int
    max_batch_size: int
    idle_s: float
    max_queue_size: int
    max_queue_delay_s: float = 0.0
    preferred_batch_sizes: tuple[int, ...] = ()
    minimum_slot_utilization: float = 0.0


def sequence_policy(
    config: SequencesConfig, batching: BatchingConfig, *, is_batched: bool
) -> SequencePolicy:
    rows = batching.max_batch_size if is_batched else 1
    is_direct = config.strategy == "direct"
    return SequencePolicy(
        is_direct=is_direct,
        num_slots=rows if is_direct else config.max_candidate_sequences,
        max_batch_size=rows,
        idle_s=config.max_sequence_idle_us / 1e6,
        max_queue_size=batching.max_queue_size,
        max_queue_delay_s=config.max_queue_delay_us / 1e6,
        preferred_batch_sizes=tuple(n for n in config.preferred_batch_sizes if n <= rows),
        minimum_slot_utilization=config.minimum_slot_utilization,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Member(Generic[P]):
    """A request in a batch. `number` names its sequence (an id may be used again); `row` is its
    place in the batch."""

    item: Queued[P]
    step: SequenceStep
    number: int
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSequences(Generic[P]):
    """Run these now. Of `num_rows` rows those without a member are not ready."""

    members: tuple[Member[P], ...]
    num_rows: int
    reason: str
    dropped: tuple[Dropped[P], ...] = ()


@dataclass(slots=True, kw_only=True, eq=False)
class _Sequence(Generic[P]):
    """`takes_more` until its END was accepted, or its id was started again."""

    number: int
    id: int | str
    slot: int | None = None
    waiting: deque[tuple[Queued[P], SequenceStep]] = field(default_factory=deque)
    is_running: bool = False
    takes_more: bool = True
    idle_since_s: float = inf


class SequenceQueue(Generic[P]):
    """Time comes in as an argument (seconds, any monotonic clock). One batch at a time: `decide`
    until it says run, then `finished`."""

    def __init__(self, policy: SequencePolicy) -> None:
        self.policy = policy
        self._num_waiting = 0
        self._num_begun = 0
        self._by_id: dict[int | str, _Sequence[P]] = {}
        # Sequences that wait for a slot, in order of their START.
        self._backlog: OrderedDict[int, _Sequence[P]] = OrderedDict()
        # Those with a slot: with a request to run, and (oldest first) with none.
        self._ready: dict[int, _Sequence[P]] = {}
        self._idle: OrderedDict[int, _Sequence[P]] = OrderedDict()
        self._running: tuple[_Sequence[P], ...] = ()
        self._free = list(range(policy.num_slots - 1, -1, -1))
        self._ended: list[int] = []

    def __len__(self) -> int:
        return self._num_waiting

    @property
    def num_slots_taken(self) -> int:
        return self.policy.num_slots - len(self._free)

    def push(self, item: Queued[P], step: SequenceStep, now_s: float) -> None:
        """Raises: InvalidRequest for a sequence that was not started, or has ended;
        Overloaded when too many requests wait."""
        if self._num_waiting >= self.policy.max_queue_size:
            raise Overloaded(
                f"Exceeds maximum queue size ({self.policy.max_queue_size})", retry_after_s=1
            )
        self._end_idle(now_s)
        sequence = self._by_id.get(step.id)
        if step.is_start:
            if sequence is not None:
                # As Triton does: the old sequence ends early, with what it has queued.
                self._close(sequence)
            sequence = self._begin(step.id)
        elif sequence is None:
            raise InvalidRequest(f"inference request for sequence {step.id} {NOT_STARTED}")
        sequence.waiting.append((item, step))
        self._num_waiting += 1
        if sequence.slot is not None:
            self._idle.pop(sequence.number, None)
            if not sequence.is_running:
                self._ready[sequence.number] = sequence
        if step.is_end:
            sequence.takes_more = False
            del self._by_id[step.id]

    def decide(self, now_s: float) -> RunSequences[P] | Wait[P] | Idle[P]:
        """What a free engine does now. What is `dropped` has left and waits for its answer."""
        dropped = self._drop_late(now_s)
        self._end_idle(now_s)
        self._fill_slots()
        chosen = self._choose()
        until_s = self._next_event_s()
        if chosen:
            count, reason, leaves_s = self._close_batch(chosen, now_s)
            if count:
                return self._run(chosen[:count], reason, dropped)
            until_s = min(until_s, leaves_s)
        if until_s == inf:
            return Idle(dropped=tuple(dropped))
        return Wait(until_s=until_s, reason="for requests", dropped=tuple(dropped))

    def finished(self, now_s: float) -> None:
        """The batch that `decide` gave has been computed."""
        running, self._running = self._running, ()
        for sequence in running:
            sequence.is_running = False
            if sequence.waiting:
                self._ready[sequence.number] = sequence
            elif not sequence.takes_more:
                self._release(sequence)
            else:
                sequence.idle_since_s = now_s
                self._idle[sequence.number] = sequence

    def withdraw(self, item: Queued[P]) -> None:
        """Its caller is gone: the next `decide` drops it. Those behind it stay, unless it was to
        start the sequence."""
        item.deadline_s = -inf

    def take_ended(self) -> tuple[int, ...]:
        """The numbers of the sequences that are over since this was last asked."""
        ended, self._ended = tuple(self._ended), []
        return ended

    def _begin(self, name: int | str) -> _Sequence[P]:
        self._num_begun += 1
        sequence: _Sequence[P] = _Sequence(number=self._num_begun, id=name)
        self._by_id[name] = sequence
        self._backlog[sequence.number] = sequence
        self._fill_slots()
        return sequence

    def _close(self, sequence: _Sequence[P]) -> None:
        sequence.takes_more = False
        self._by_id.pop(sequence.id, None)
        if not sequence.waiting and not sequence.is_running:
            self._release(sequence)

    def _release(self, sequence: _Sequence[P]) -> None:
        """It is over: its slot is free, its state can go."""
        self._ended.append(sequence.number)
        for place in (self._ready, self._idle, self._backlog):
            place.pop(sequence.number, None)
        if sequence.slot is not None:
            self._free.append(sequence.slot)
            self._free.sort(reverse=True)
            sequence.slot = None

    def _end_idle(self, now_s: float) -> None:
        while self._idle:
            sequence = next(iter(self._idle.values()))
            if sequence.idle_since_s + self.policy.idle_s > now_s:
                return
            self._close(sequence)

    def _fill_slots(self) -> None:
        while self._free and self._backlog:
            _, sequence = self._backlog.popitem(last=False)
            sequence.slot = self._free.pop()
            if sequence.waiting:
                self._ready[sequence.number] = sequence

    def _drop_late(self, now_s: float) -> list[Dropped[P]]:
        dropped: list[Dropped[P]] = []
        for sequence in [*self._ready.values(), *self._backlog.values()]:
            while sequence.waiting and sequence.waiting[0][0].deadline_s <= now_s:
                item, step = sequence.waiting.popleft()
                reason = "the deadline passed while it was queued"
                dropped.append(Dropped(item=item, reason=reason))
                if step.is_start:
                    # What follows would be computed on the state of nothing.
                    reason = "the request that starts its sequence was not run in time"
                    dropped += [Dropped(item=i, reason=reason) for i, _ in sequence.waiting]
                    sequence.waiting.clear()
                    sequence.takes_more = False
                    if self._by_id.get(sequence.id) is sequence:
                        del self._by_id[sequence.id]
            if not sequence.waiting:
                self._ready.pop(sequence.number, None)
                if not sequence.takes_more:
                    self._release(sequence)
                elif sequence.slot is not None:
                    sequence.idle_since_s = now_s
                    self._idle[sequence.number] = sequence
        self._num_waiting -= len(dropped)
        return dropped

    def _choose(self) -> list[_Sequence[P]]:
        """Sequences whose next request can share a batch, the oldest request first."""
        ready = sorted(self._ready.values(), key=_arrived_s)
        if not ready:
            return []
        shape = ready[0].waiting[0][0].shape_key
        same = [s for s in ready if s.waiting[0][0].shape_key == shape]
        return same[: self.policy.max_batch_size]

    def _close_batch(self, chosen: list[_Sequence[P]], now_s: float) -> tuple[int, str, float]:
        """How many leave now and why; with none, when they leave at the latest."""
        policy, count = self.policy, len(chosen)
        leaves_s = _arrived_s(chosen[0]) + policy.max_queue_delay_s
        if count >= policy.max_batch_size:
            return count, f"{count} rows, a full batch", now_s
        if policy.is_direct:
            is_enough = count / policy.num_slots >= policy.minimum_slot_utilization
            if not policy.minimum_slot_utilization or is_enough:
                return count, f"{count} of {policy.num_slots} slots are ready", now_s
        preferred = max((n for n in policy.preferred_batch_sizes if n <= count), default=0)
        if preferred and not policy.is_direct:
            return preferred, f"{preferred} rows, a preferred size", now_s
        if leaves_s <= now_s:
            return count, "the oldest request has waited its delay", now_s
        return 0, "", leaves_s

    def _run(
        self, chosen: list[_Sequence[P]], reason: str, dropped: list[Dropped[P]]
    ) -> RunSequences[P]:
        members: list[Member[P]] = []
        for index, sequence in enumerate(chosen):
            item, step = sequence.waiting.popleft()
            del self._ready[sequence.number]
            sequence.is_running = True
            assert sequence.slot is not None
            row = sequence.slot if self.policy.is_direct else index
            members.append(Member(item=item, step=step, number=sequence.number, row=row))
        self._num_waiting -= len(members)
        self._running = tuple(chosen)
        return RunSequences(
            members=tuple(members),
            num_rows=max(member.row for member in members) + 1,
            reason=reason,
            dropped=tuple(dropped),
        )

    def _next_event_s(self) -> float:
        """When something changes by itself: a request is late, a sequence was idle too long."""
        times = [
            sequence.waiting[0][0].deadline_s
            for sequence in (*self._ready.values(), *self._backlog.values())
        ]
        if self._idle:
            first = next(iter(self._idle.values()))
            times.append(first.idle_since_s + self.policy.idle_s)
        return min(times, default=inf)


def _arrived_s(sequence: _Sequence[P]) -> float:
    return sequence.waiting[0][0].arrived_s
