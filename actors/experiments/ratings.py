"""Feedback meets its requests: the controller knows the arm of each that a door has told of.

Doors tell once a second, and at once before they hand feedback over, so that a door's own requests
are always known. A value for another door's newest request waits until that door has told.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from actors.experiments.kept import Kept
from actors.experiments.kept_runs import KeptRun, KeptRuns, RunKeeper
from actors.experiments.tally import ArmTally
from cluster.experiments.asked import Asked, Place, Run, digests_in, digests_of
from cluster.experiments.report import Feedback, Rated, Tallied
from cluster.routing.table import next_version

WAIT_S = 60.0
"""A door that cannot reach the controller for longer has its requests rated too late."""
MAX_WAITING = 100_000
MAX_KEPT_WAITING = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    until_s: float
    feedback: Feedback


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What came of values: `tallies` to be added, each of `rated` once."""

    tallies: tuple[Tallied, ...] = ()
    rated: tuple[Rated, ...] = ()


class Ratings:
    """Lives on the controller's loop."""

    def __init__(self, keeper: RunKeeper, kept: Kept, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._runs = KeptRuns(keeper)
        self._read = self._runs.read(kept.asked)
        self._number = max((run.number for runs in self._read.values() for run in runs), default=0)
        self._asked: dict[str, Asked] = {}
        # A plain dict walks over all that was deleted at its front to find what is first.
        self._waiting: dict[str, OrderedDict[int, _Waiting]] = {}
        for experiment, feedback in kept.feedback:
            self.wait(experiment, [feedback])

    def adopt(self, remember: Mapping[str, int]) -> None:
        """Experiment -> how many of its requests are to be remembered."""
        for name, num in remember.items():
            if name in self._asked:
                self._asked[name].remember = num
            else:
                self._asked[name] = Asked(num, self._read.pop(name, ()))
        for gone in self._asked.keys() - remember.keys():
            del self._asked[gone]
            self._waiting.pop(gone, None)

    def forget(self, experiment: str) -> None:
        """It begins anew: what was answered before says nothing about it."""
        if experiment in self._asked:
            self._asked[experiment] = Asked(self._asked[experiment].remember)
        self._read.pop(experiment, None)
        self._waiting.pop(experiment, None)

    def take(self, tallied: Tallied) -> Counted:
        """A door tells of its requests; what came of values that waited for them."""
        asked = self._asked.get(tallied.experiment)
        if asked is None or not tallied.asked:
            return Counted()
        weights = tallied.weights
        batches = [(Place(arm=arm, weights=weights), told) for arm, told in tallied.asked.items()]
        asked.add(self._next(), batches)
        waiting = self._waiting_for(tallied.experiment)
        if not waiting:
            return Counted()
        told = {each for _, content in batches for each in digests_in(content).tolist()}
        known = [waiting.pop(digest).feedback for digest in waiting.keys() & told]
        return self.rate(tallied.experiment, known)[0]

    def rate(
        self, experiment: str, feedback: Sequence[Feedback]
    ) -> tuple[Counted, Sequence[Feedback]]:
        """What came of values, and those whose requests nobody has told of."""
        asked = self._asked.get(experiment)
        if asked is None or not feedback:
            return Counted(), feedback
        met = asked.rate(self._next(), digests_of([each.request_id for each in feedback]))
        tallies: dict[int, tuple[Place, ArmTally]] = {}
        rated: list[Rated] = []
        for each in met:
            given = feedback[each.index]
            _, tally = tallies.setdefault(id(each.place), (each.place, ArmTally()))
            tally.rated(each.cluster, given.value)
            rated.append(
                Rated(
                    experiment=experiment,
                    arm=each.place.arm,
                    request_id=given.request_id,
                    value=given.value,
                    at_s=self._clock(),
                )
            )
        found = {each.index for each in met}
        unknown = [each for index, each in enumerate(feedback) if index not in found]
        counted = Counted(
            tallies=tuple(
                Tallied(
                    experiment=experiment,
                    weights=place.weights,
                    arms={place.arm: tally.counts()},
                )
                for place, tally in tallies.values()
            ),
            rated=tuple(rated),
        )
        return counted, unknown

    def wait(self, experiment: str, feedback: Iterable[Feedback]) -> None:
        """A door may yet tell of their requests."""
        feedback = list(feedback)
        if not feedback:
            return
        waiting = self._waiting_for(experiment)
        until_s = self._clock() + WAIT_S
        digests = digests_of([each.request_id for each in feedback]).tolist()
        for digest, each in zip(digests, feedback, strict=True):
            waiting.setdefault(digest, _Waiting(until_s=until_s, feedback=each))
        while len(waiting) > MAX_WAITING:
            waiting.popitem(last=False)

    def write(self) -> dict[str, tuple[KeptRun, ...]]:
        """What is kept of requests; see `KeptRuns`."""
        return self._runs.write(self._all())

    def clean(self) -> None:
        self._runs.clean(self._all())

    def waiting(self) -> tuple[tuple[str, Feedback], ...]:
        """What is kept of values that wait: the newest."""
        return tuple(
            (name, each.feedback)
            for name in self._waiting
            for waiting in (self._waiting_for(name),)
            for each in islice(waiting.values(), max(0, len(waiting) - MAX_KEPT_WAITING), None)
        )

    def _waiting_for(self, experiment: str) -> OrderedDict[int, _Waiting]:
        waiting = self._waiting.setdefault(experiment, OrderedDict())
        now_s = self._clock()
        while waiting and next(iter(waiting.values())).until_s < now_s:
            waiting.popitem(last=False)
        return waiting

    def _all(self) -> dict[str, Sequence[Run]]:
        # What was read of experiments that no door has brought yet stays as it was.
        return {**self._read, **{name: asked.runs for name, asked in self._asked.items()}}

    def _next(self) -> int:
        # A report of more places than a run can have becomes several, numbered on from here.
        self._number = next_version(int(self._clock() * 1e9), self._number + 99)
        return self._number
