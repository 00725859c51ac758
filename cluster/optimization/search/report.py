"""What a search found, as values and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cluster.optimization.gate.gate import NOT_VALIDATED, Verdict
from cluster.optimization.gate.intervals import Interval
from cluster.optimization.measure.timing import Timing
from cluster.optimization.measure.variant import Variant

Status = Literal["measured", "failed the gate", "skipped", "failed", "too large"]


@dataclass(slots=True, kw_only=True)
class Candidate:
    """One way to serve the model. Filled as the search goes; `reason` says why it stopped.

    `speedup` is over the baseline, in the same interleaved run. `peak_bytes`: resident memory of a
    process of its own that loads the variant and runs it (0: not measured). `is_by_wall`: with
    several threads or a GPU a caller waits less than the processor works, and that is what counts.
    """

    name: str
    engine: str
    precision: str
    says: str
    model: str
    status: Status = "skipped"
    reason: str = ""
    variant: Variant | None = None
    verdict: Verdict | None = None
    timing: Timing | None = None
    speedup: Interval | None = None
    size_bytes: int = 0
    peak_bytes: int = 0
    was_cached: bool = False
    is_on_front: bool = False
    is_reference: bool = False
    is_by_wall: bool = False

    @property
    def cost_ms(self) -> float:
        """What ranks candidates and what their speed-ups are of: CPU time of a call in one thread,
        wall time otherwise."""
        assert self.timing is not None, "only measured candidates have a cost"
        if self.is_by_wall:
            return self.timing.p50_ms
        return self.timing.cpu_p50_ms or self.timing.p50_ms

    @property
    def accuracy_lost(self) -> float | None:
        """As a share, none below 0; None where labels do not say it surely enough."""
        if self.verdict is None:
            return 0.0 if self.is_reference else None
        if self.verdict.accuracy is None or not self.verdict.is_shown:
            return None
        return max(0.0, -self.verdict.accuracy.change_points.value / 100)

    @property
    def distance(self) -> float:
        """To the original's answers: the share of decisions that changed; by cosine where there
        are none, and on random inputs, which have no best class to keep."""
        if self.verdict is None:
            return 0.0
        agreement = self.verdict.agreement
        if agreement.top1 is not None and self.verdict.is_validated:
            return 1 - agreement.top1.value
        return 1 - agreement.cosine.value

    @property
    def quality(self) -> str:
        if self.is_reference:
            return "the reference"
        return self.verdict.label if self.verdict else NOT_VALIDATED

    def as_dict(self) -> dict[str, object]:
        verdict = self.verdict
        return {
            "name": self.name,
            "model": self.model,
            "engine": self.engine,
            "options": dict(self.variant.options) if self.variant else {},
            "precision": self.precision,
            "says": self.says,
            "status": self.status,
            "reason": self.reason,
            "cached": self.was_cached,
            "size_bytes": self.size_bytes,
            "peak_memory_bytes": self.peak_bytes or None,
            **(self.timing.as_dict() if self.timing else {}),
            "speedup": self.speedup.value if self.speedup else None,
            "speedup_interval": [self.speedup.low, self.speedup.high] if self.speedup else None,
            "pareto": self.is_on_front,
            "validated": self.is_reference or bool(verdict and verdict.is_validated),
            "gate": verdict.as_dict() if verdict else None,
            "accuracy": verdict.accuracy.as_dict() if verdict and verdict.accuracy else None,
            "agreement": verdict.agreement.as_dict() if verdict else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeReport:
    """`chosen` is one of `candidates` (the original itself when nothing better passed).

    `constraints_met` is false when no candidate kept all constraints; then the fastest that passed
    the gate was chosen and `reason` says what it breaks. `folder` holds the chosen artefact with
    its card and this report. `ignored`: option -> why it did not act.
    """

    model: str
    sha256: str
    level: str
    baseline: str
    data: str
    is_real_data: bool
    hardware: Mapping[str, object]
    libraries: Mapping[str, str]
    threads: int
    batch_size: int
    speedup_of: Literal["cpu_ms", "wall_ms"]
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    reason: str
    constraints_met: bool
    folder: Path | None = None
    ignored: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return {
            "model": self.model,
            "sha256": self.sha256,
            "level": self.level,
            "baseline": self.baseline,
            "data": self.data,
            "validated": self.is_real_data,
            "hardware": dict(self.hardware),
            "libraries": dict(self.libraries),
            "threads": self.threads,
            "batch_size": self.batch_size,
            "speedup_of": self.speedup_of,
            "chosen": self.chosen.as_dict(),
            "reason": self.reason,
            "constraints_met": self.constraints_met,
            "folder": str(self.folder) if self.folder else None,
            "ignored": dict(self.ignored),
            "candidates": [each.as_dict() for each in self.candidates],
        }
