"""Which models go on which groups: every one somewhere, then copies where requests are late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cluster.placement.search.candidate import (
    Candidate,
    Cuts,
    Evaluate,
    Evaluation,
    Group,
    fits,
    score,
)
from cluster.placement.search.groups import Layout
from cluster.placement.search.stages import Cut
from cluster.units import human_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """`batch` copies are added between two simulations; `patience` simulations in a row may gain
    less than `worth` before a layout is given up."""

    must_have_all: bool = True
    batch: int = 1
    patience: int = 1 << 30
    worth: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRoom:
    """A model that has no place on a layout, by its index, and why."""

    model: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """The best placement found on one layout. `num_tried`: placements that were simulated."""

    layout: Layout
    cuts: Cuts
    models: tuple[int, ...]
    candidate: Candidate
    found: Evaluation
    num_tried: int

    @property
    def score(self) -> float:
        return score(self.candidate, self.found)

    def attained(self) -> tuple[tuple[int, float], ...]:
        """Of each of its own models."""
        return tuple((model, self.found.attained(model)) for model in self.models)

    @property
    def attainment(self) -> float:
        """Of the calls of its own models."""
        count = sum(self.found.num_requests[model] for model in self.models)
        late = sum(self.found.unserved[model] for model in self.models)
        return 1.0 - late / count if count else 1.0


class Filling:
    """Groups being filled; `held[group][stage]` are bytes of each device."""

    def __init__(self, layout: Layout, cuts: Cuts) -> None:
        self.layout = layout
        self.cuts = cuts
        self.hosted: list[list[int]] = [[] for _ in layout.groups]
        self.held = [[0] * group.degrees.stages for group in layout.groups]
        self.copies = [0] * len(cuts.demands)
        self.busy = [0.0] * len(layout.groups)
        self._times = cuts.times()

    def candidate(self) -> Candidate:
        hosted = tuple(tuple(sorted(models)) for models in self.hosted)
        return Candidate(groups=self.layout.groups, hosted=hosted, times=self._times)

    def room(self, model: int) -> int | None:
        """The least busy group that has room for one more copy."""
        best: int | None = None
        for index, group in enumerate(self.layout.groups):
            found = self.cuts.of(group, model)
            if isinstance(found, str) or (best is not None and self.busy[index] >= self.busy[best]):
                continue
            if model not in self.hosted[index] and fits(
                self.held[index], found, group.memory_bytes
            ):
                best = index
        return best

    def add(self, index: int, model: int) -> None:
        found = self.cut(self.layout.groups[index], model)
        self.hosted[index].append(model)
        self.copies[model] += 1
        for stage, more in enumerate(found.bytes_held):
            self.held[index][stage] += more

    def cut(self, group: Group, model: int) -> Cut:
        found = self.cuts.of(group, model)
        assert isinstance(found, Cut)
        return found

    def load(self, index: int, model: int, share: float) -> None:
        """Expect `share` of the model's calls on the group from now on."""
        slowest_s = self.cut(self.layout.groups[index], model).slowest_s
        self.busy[index] += self.cuts.demands[model].rate_per_s * slowest_s * share


def pack(layout: Layout, cuts: Cuts, models: Sequence[int]) -> Filling | NoRoom:
    """Every model once, the largest first, each on the group that expects the least work; or what
    does not fit."""
    filling = Filling(layout, cuts)
    demands = cuts.demands
    for model in sorted(
        models, key=lambda m: (-demands[m].facts.weight_bytes, -demands[m].rate_per_s, m)
    ):
        index = filling.room(model)
        if index is None:
            return NoRoom(model=model, why=_no_room(filling, model))
        filling.add(index, model)
        filling.load(index, model, 1.0)
    return filling


def fill(
    layout: Layout, cuts: Cuts, models: Sequence[int], evaluate: Evaluate, effort: Effort
) -> Filled | NoRoom:
    """Copies are added, each of the model with most late requests on the least busy group with
    room, until nothing fits, nothing is late or it does not help any more.

    Source: AlpaServe's fast heuristic (OSDI'23, section 4.2); adding several copies between two
    simulations is ours, and so is that every model has a place (`must_have_all`).
    """
    packed = pack(layout, cuts, models) if effort.must_have_all else Filling(layout, cuts)
    if isinstance(packed, NoRoom):
        return packed
    candidate = packed.candidate()
    best = Filled(
        layout=layout,
        cuts=cuts,
        models=tuple(models),
        candidate=candidate,
        found=evaluate(candidate),
        num_tried=1,
    )
    found = best.found
    num_tried, num_in_vain = 1, 0
    while num_in_vain < effort.patience and _add_copies(packed, models, found, effort.batch):
        candidate = packed.candidate()
        found = evaluate(candidate)
        num_tried += 1
        tried = replace(best, candidate=candidate, found=found)
        num_in_vain = 0 if tried.score > best.score + effort.worth else num_in_vain + 1
        if tried.score > best.score:
            best = tried
    return replace(best, num_tried=num_tried)


def _add_copies(filling: Filling, models: Sequence[int], found: Evaluation, batch: int) -> bool:
    """False when nothing is late, or nothing more fits."""
    total_rate = sum(d.rate_per_s for d in filling.cuts.demands)
    # Busy seconds of the trace as shares of its time, which is what `load` adds to.
    seconds = sum(found.num_requests) / total_rate if total_rate else 1.0
    filling.busy = [busy / seconds for busy in found.busy_s]
    late = sorted((m for m in models if found.unserved[m]), key=lambda m: (-found.unserved[m], m))
    num_added = 0
    for model in late:
        index = filling.room(model)
        if index is None:
            continue
        filling.add(index, model)
        filling.load(index, model, 1.0 / filling.copies[model])
        num_added += 1
        if num_added >= batch:
            break
    return num_added > 0


def _no_room(filling: Filling, model: int) -> str:
    demand = filling.cuts.demands[model]
    cuts = [filling.cuts.of(group, model) for group in filling.layout.groups]
    possible = [found for found in cuts if isinstance(found, Cut)]
    if not possible:
        return f"{demand.name}: {cuts[0]}"
    needed = min(max(found.bytes_held) for found in possible)
    free = max(
        group.memory_bytes - max(held)
        for group, held in zip(filling.layout.groups, filling.held, strict=True)
    )
    return (
        f"{demand.name} needs {human_bytes(needed)} on each device of a group; "
        f"{human_bytes(max(0, free))} are free on the emptiest"
    )
