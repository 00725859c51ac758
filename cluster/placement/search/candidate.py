"""A placement while it is searched for, and what is told of it when it is tried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.placement.search.facts import Demand
from cluster.placement.search.stages import Cut, Degrees
from cluster.topology import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Devices that work as one, stage by stage: `sites[stage * tensor + slice]`. Groups of equal
    `kind` take equally long for everything."""

    sites: tuple[Site, ...]
    degrees: Degrees
    kind: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """`hosted[group]`: models by their index; `times[kind of group][model]`: (from first stage to
    answer, slowest stage), in seconds, None where the model cannot run so."""

    groups: tuple[Group, ...]
    hosted: tuple[tuple[int, ...], ...]
    times: dict[str, tuple[tuple[float, float] | None, ...]]

    @property
    def num_replicas(self) -> int:
        return sum(map(len, self.hosted))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a trace of the demand did to a candidate. `unserved[model]`: requests answered late or
    not at all; `busy_s[group]`: of its slowest stage."""

    attainment: float
    mean_latency_s: float
    num_requests: tuple[int, ...]
    unserved: tuple[int, ...]
    busy_s: tuple[float, ...]

    def attained(self, model: int) -> float:
        """The share of a model's requests answered in time; 1 when it got none."""
        count = self.num_requests[model]
        return 1.0 if not count else 1.0 - self.unserved[model] / count


Evaluate = Callable[[Candidate], Evaluation]


def score(candidate: Candidate, found: Evaluation) -> float:
    """Attainment first, then speed, then copies to spare. Source: AlpaServe's evaluator; copies
    count per device here, so that in a large cluster they do not outweigh speed."""
    devices = sum(group.degrees.num_devices for group in candidate.groups)
    copies = candidate.num_replicas / max(1, devices)
    return found.attainment - found.mean_latency_s / 1e4 + copies / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """Every model on every kind of group of one layout; a text says why it cannot run there."""

    demands: tuple[Demand, ...]
    by_kind: dict[str, tuple[Cut | str, ...]]

    def times(self) -> dict[str, tuple[tuple[float, float] | None, ...]]:
        return {
            kind: tuple(None if isinstance(c, str) else (c.total_s, c.slowest_s) for c in cuts)
            for kind, cuts in self.by_kind.items()
        }

    def of(self, group: Group, model: int) -> Cut | str:
        return self.by_kind[group.kind][model]


def fits(held: Sequence[int], cut: Cut, memory_bytes: int) -> bool:
    """Whether every stage has room for its part beside the bytes it holds."""
    return all(have + more <= memory_bytes for have, more in zip(held, cut.bytes_held, strict=True))
