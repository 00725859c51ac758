"""What of a Triton model configuration has no exact counterpart here, field by field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["refused", "dropped", "changed"]
"""`refused`: the model cannot be served; `dropped`: the field has no effect here; `changed`: it has
one, not exactly Triton's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report. `field` is the path in Triton's ModelConfig."""

    model: str
    field: str
    outcome: Outcome
    reason: str


@dataclass(slots=True, kw_only=True)
class Findings:
    """Collects what is said of one model."""

    model: str
    found: list[Finding] = field(default_factory=list)

    def refused(self, field: str, reason: str) -> None:
        self._add(field, "refused", reason)

    def dropped(self, field: str, reason: str) -> None:
        self._add(field, "dropped", reason)

    def changed(self, field: str, reason: str) -> None:
        self._add(field, "changed", reason)

    def has_refused(self) -> bool:
        return any(finding.outcome == "refused" for finding in self.found)

    def _add(self, field: str, outcome: Outcome, reason: str) -> None:
        self.found.append(Finding(model=self.model, field=field, outcome=outcome, reason=reason))
