"""What all variants together may take: whose replicas go, or do not start, where a cap is short."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from cluster.control.autoscaling.load import Scaling

IDLE_RATE = 0.01
"""Requests a second; less is nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What counts of one variant when something must go. `size` is of one replica, in the unit of
    the cap; `rested_s`: how long nobody has asked; `startup_s`: what bringing it back takes."""

    size: float
    min_replicas: int = 0
    rested_s: float = 0.0
    startup_s: float = 0.0


def hold(
    wanted: Mapping[str, Scaling], standings: Mapping[str, Standing], *, limit: float, key: str
) -> dict[str, Scaling]:
    """As wanted, with so much taken away that the limit holds. `key`: where it is configured.

    In this order: whole idle variants, least recently asked first; single replicas where most room
    is left; for one that must start, others that have rested for longer than their own start takes;
    the start itself; what is in use, least recently asked first. Only what `min_replicas` promise
    may exceed the limit, and the reasons say so. A replica of size 0 frees nothing, and stays.
    """
    cap = _Cap(found=dict(wanted), standings=standings, limit=limit, key=key)
    while cap.total > limit:
        name, num, why = next(cap.ways(), ("", 0, ""))
        if not name:
            break
        cap.found[name] = replace(cap.found[name], num_replicas=num, reason=why)
    if cap.total > limit:
        for name, each in cap.found.items():
            if each.num_replicas and standings[name].size > 0:
                text = f"{each.reason}; {key} ({limit:g}) is exceeded: min_replicas promise more"
                cap.found[name] = replace(each, reason=text)
    return cap.found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cap:
    found: dict[str, Scaling]
    standings: Mapping[str, Standing]
    limit: float
    key: str

    @property
    def total(self) -> float:
        return sum(each.num_replicas * self._of(name).size for name, each in self.found.items())

    def ways(self) -> Iterator[tuple[str, int, str]]:
        """Variant, its smaller number and the reason; the best way first."""
        says = f"{self.key} is {self.limit:g}"
        idle = self._some(self._is_idle)
        if idle:
            name = max(idle, key=self._rested_s)
            yield name, 0, f"evicted: {says} and it was asked least recently"
        spare = self._some(lambda name, each: each.num_replicas > max(1, self._least(name)), 1)
        if spare:
            name = min(spare, key=self._load_of_the_rest)
            num = self.found[name].num_replicas - 1
            reason = self.found[name].reason.partition("; held to")[0]
            yield name, num, f"{reason}; held to {num} by {self.key} ({self.limit:g})"
        starts = self._some(lambda name, each: each.num_before == 0)
        resting = self._some(lambda name, each: each.num_before > 0 and self._rests(name, each))
        room = sum(self.found[name].num_replicas * self._of(name).size for name in resting)
        if starts and resting and self.total - room <= self.limit:
            name = max(resting, key=self._rested_s)
            yield name, 0, f"evicted for {starts[0]}: {says} and it was asked least recently"
        if starts:
            name = min(starts, key=lambda name: self.found[name].rate)
            yield name, 0, f"not started: {says} and what runs is in use"
        busy = self._some(lambda name, each: True)
        if busy:
            name = max(busy, key=self._rested_s)
            yield name, 0, f"evicted though it is in use: {says}"

    def _some(self, is_one: Callable[[str, Scaling], bool], least: int = 0) -> list[str]:
        """Those of which more than `least` replicas run, may go, and would free something."""
        return [
            name
            for name, each in self.found.items()
            if each.num_replicas > least
            and self._of(name).size > 0
            and (least or not self._least(name))
            and is_one(name, each)
        ]

    def _is_idle(self, name: str, each: Scaling) -> bool:
        # One that has just started was not measured yet: its rate says nothing.
        return each.rate < IDLE_RATE and not each.is_guard and self._rested_s(name) > 0

    def _rests(self, name: str, each: Scaling) -> bool:
        return not each.is_guard and self._rested_s(name) > self._of(name).startup_s

    def _of(self, name: str) -> Standing:
        return self.standings[name]

    def _least(self, name: str) -> int:
        return self._of(name).min_replicas

    def _rested_s(self, name: str) -> float:
        return self._of(name).rested_s

    def _load_of_the_rest(self, name: str) -> float:
        each = self.found[name]
        return each.rate * each.service_s / (each.num_replicas - 1)
