"""The Pareto front of what was measured, and the one candidate that is picked, with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.errors import ConfigError
from cluster.optimization.search.report import Candidate

NOISE = 0.03
"""Costs closer than this are the same: an A/A pair differs by up to 3 % in our runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """None: anything goes. The loss of accuracy is the gate's limit, not one of these."""

    max_latency_ms: float | None = None
    max_p99_ms: float | None = None
    max_size_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_latency_ms", "max_p99_ms", "max_size_bytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}; allowed: above 0", key=name, value=value)

    def broken_by(self, candidate: Candidate) -> list[str]:
        """One part of a sentence for each constraint that the candidate breaks."""
        timing = candidate.timing
        assert timing is not None, "only measured candidates are asked"
        found: list[str] = []
        if self.max_latency_ms is not None and timing.p50_ms > self.max_latency_ms:
            found.append(f"p50 {timing.p50_ms:.2f} ms above {self.max_latency_ms:g} ms")
        if self.max_p99_ms is not None:
            # With fewer than 100 calls the slowest stands for the p99: it is not below it.
            p99_ms = timing.p99_ms if timing.p99_ms is not None else max(timing.wall_ms)
            if p99_ms > self.max_p99_ms:
                found.append(f"p99 {p99_ms:.2f} ms above {self.max_p99_ms:g} ms")
        if self.max_size_bytes is not None and candidate.size_bytes > self.max_size_bytes:
            found.append(
                f"{candidate.size_bytes / 1e6:.1f} MB above {self.max_size_bytes / 1e6:g} MB"
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    chosen: Candidate
    reason: str
    constraints_met: bool


def mark_front(candidates: Sequence[Candidate]) -> None:
    """Sets `is_on_front`: no other is at least as good in cost, size and loss and better in one.

    The loss is of accuracy where labels tell it of every candidate, else the distance to the
    original's answers: one measure for all, as a loss of accuracy is no share of changed decisions.
    """
    measured = [each for each in candidates if each.status == "measured"]
    lost = [each.accuracy_lost for each in measured]
    found: list[Sequence[float]] = [
        (each.cost_ms, each.size_bytes, each.distance if known is None or None in lost else known)
        for each, known in zip(measured, lost, strict=True)
    ]
    for each in candidates:
        each.is_on_front = False
    for each, mine in zip(measured, found, strict=True):
        each.is_on_front = not any(_dominates(other, mine) for other in found)


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(first, second, strict=True)) and first != second


def choose(candidates: Sequence[Candidate], constraints: Constraints, baseline: str) -> Choice:
    """The cheapest that passed the gate and keeps the constraints; of equals the smallest.

    **Raises:** ValueError when nothing was measured.
    """
    measured = [each for each in candidates if each.status == "measured"]
    if not measured:
        raise ValueError("nothing was measured, so nothing can be chosen")
    allowed = [each for each in measured if not constraints.broken_by(each)]
    among = allowed or measured
    cheapest = min(each.cost_ms for each in among)
    equal = [each for each in among if each.cost_ms <= cheapest * (1 + NOISE)]
    chosen = min(equal, key=lambda each: (each.size_bytes, each.cost_ms))
    speedup = chosen.speedup
    said = [
        f"{chosen.name} is the cheapest of {len(among)} that "
        + ("keep the constraints and passed the gate" if allowed else "passed the gate")
    ]
    if len(equal) > 1:
        others = ", ".join(each.name for each in equal if each is not chosen)
        said.append(f"{others} cost the same within {NOISE:.0%} and are not smaller")
    if speedup is not None and chosen.name != baseline:
        said.append(
            f"{speedup.value:.2f} times as fast as {baseline} [{speedup.low:.2f}, "
            f"{speedup.high:.2f}]"
            + (", which does not show that it is faster at all" if speedup.low <= 1 else "")
        )
    if chosen.name == baseline:
        said.append("nothing was faster than the original")
    if not allowed:
        said.append(
            "no candidate keeps all constraints: " + "; ".join(constraints.broken_by(chosen))
        )
    said.append(chosen.quality)
    return Choice(chosen=chosen, reason=". ".join(said) + ".", constraints_met=bool(allowed))
