"""How far one request through an ensemble is: what runs next, what is missing, when it is over."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from cluster.config.ensembles.combining import CombineStep
from cluster.errors import SquadronError
from cluster.routing.ensembles.plan import EnsemblePlan


class GraphProgress:
    """Events in (`finished`, `failed`), decisions out (`start`, `due_s`, `is_done`,
    `error`). Steps that nothing wanted depends on are never started.

    A failed step's values are missing. What cannot do without them is missing as well; a step with
    a quorum runs without, once the rest of its inputs are there or given up.
    """

    def __init__(
        self,
        plan: EnsemblePlan,
        *,
        inputs: Iterable[str],
        wanted: Collection[str],
        hurry_s: float = math.inf,
    ) -> None:
        """`hurry_s`: from this moment on a reached quorum waits for nobody, whatever its `wait_ms`
        says: later there is no time left for what comes after it."""
        self._plan = plan
        self._hurry_s = hurry_s
        self._wanted = frozenset(wanted)
        self._known = set(inputs)
        self._missing: dict[str, SquadronError] = {}
        self._open = _needed(plan, self._wanted)
        self._quorum_since_s: dict[int, float] = {}

    @property
    def is_done(self) -> bool:
        """Everything wanted is known."""
        return self._wanted <= self._known

    @property
    def error(self) -> SquadronError | None:
        """Why it cannot be done: the failure that the first wanted value went missing by."""
        return next((self._missing[name] for name in self._missing if name in self._wanted), None)

    @property
    def missing(self) -> frozenset[str]:
        return frozenset(self._missing)

    def start(self, now_s: float) -> tuple[int, ...]:
        """The steps that can run now; each is told once."""
        found = tuple(index for index in sorted(self._open) if self._can_run(index, now_s))
        self._open.difference_update(found)
        return found

    def due_s(self) -> float | None:
        """When a quorum stops waiting for the rest, unless something happens before."""
        return min(
            (
                self._due_s(index, since_s)
                for index, since_s in self._quorum_since_s.items()
                if index in self._open
            ),
            default=None,
        )

    def finished(self, index: int) -> None:
        """The step's values are known."""
        self._known |= self._plan.steps[index].gives

    def failed(self, index: int, error: SquadronError) -> None:
        """The step gives nothing; neither does what cannot do without it."""
        for value in self._plan.steps[index].gives:
            self._missing[value] = error
        # Steps stand in an order that can run: one look finds all that depend on each other.
        for later, planned in enumerate(self._plan.steps):
            if later in self._open:
                num_left = len(planned.needs - self._missing.keys())
                if num_left < planned.enough:
                    self._open.discard(later)
                    for value in planned.gives:
                        self._missing.setdefault(value, error)

    def _can_run(self, index: int, now_s: float) -> bool:
        planned = self._plan.steps[index]
        if planned.needs <= self._known:
            return True
        if len(planned.needs & self._known) < planned.enough:
            return False
        if planned.needs <= self._known | self._missing.keys():
            return True
        since_s = self._quorum_since_s.setdefault(index, now_s)
        return now_s >= self._due_s(index, since_s)

    def _due_s(self, index: int, since_s: float) -> float:
        step = self._plan.steps[index].step
        assert isinstance(step, CombineStep)  # nothing else runs without all it needs
        return min(
            self._hurry_s, math.inf if step.wait_ms is None else since_s + step.wait_ms / 1e3
        )


def _needed(plan: EnsemblePlan, wanted: frozenset[str]) -> set[int]:
    """The steps that what is wanted depends on."""
    needed: set[int] = set()
    values = set(wanted)
    for index in reversed(range(len(plan.steps))):
        if plan.steps[index].gives & values:
            needed.add(index)
            values |= plan.steps[index].needs
    return needed
