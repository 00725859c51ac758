"""From the loss of a replica to as many as there were before: what is told of it, and how long it
took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cluster.control.reconcile import DeploymentSeen


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """`seconds`: from the loss until as many replicas as before could answer; 0 of a loss."""

    kind: Literal["lost", "recovered"]
    variant: str
    reason: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loss:
    """`replicas`: those that are lost, `num_before`: how many there were before the first was."""

    began_s: float
    replicas: frozenset[str]
    num_before: int
    reason: str


class Recoveries:
    """Knows losses from what a dying replica says (at once) and from what Serve says of the
    deployment (when it has noticed, which is all there is of a replica killed from outside).

    Times are of one clock, in seconds. Replicas that are taken away on purpose, by a smaller number
    or another version, are no loss: Serve calls a deployment UNHEALTHY only when one failed.
    """

    def __init__(self) -> None:
        self._steady: dict[str, frozenset[str]] = {}
        self._open: dict[str, _Loss] = {}

    @property
    def is_open(self) -> bool:
        """Whether a replacement is being waited for."""
        return bool(self._open)

    def lost(self, variant: str, replica: str, reason: str, at_s: float) -> tuple[Told, ...]:
        """A replica says that it ends, and why."""
        loss = self._open.get(variant)
        if loss is not None and replica in loss.replicas:
            return ()
        return (self._lose(variant, frozenset((replica,)), reason, at_s),)

    def step(self, seen: Mapping[str, DeploymentSeen], at_s: float) -> tuple[Told, ...]:
        """What has changed since the last look. `seen`: variant -> its deployment; one that is
        not there any more is forgotten."""
        self._steady = {name: ids for name, ids in self._steady.items() if name in seen}
        self._open = {name: loss for name, loss in self._open.items() if name in seen}
        told: list[Told] = []
        for variant, deployment in seen.items():
            running = frozenset(deployment.running)
            loss = self._open.get(variant)
            known = loss.replicas if loss is not None else frozenset()
            gone = self._steady.get(variant, frozenset()) - running - known
            if gone and deployment.status == "UNHEALTHY":
                told.append(self._lose(variant, gone, deployment.message or "it failed", at_s))
            loss = self._open.get(variant)
            if loss is None or _is_over(loss, running, deployment):
                if loss is not None:
                    told.append(_recovered(variant, loss, running, at_s))
                    del self._open[variant]
                self._steady[variant] = running
        return tuple(told)

    def _lose(self, variant: str, gone: frozenset[str], reason: str, at_s: float) -> Told:
        loss = self._open.get(variant)
        if loss is None:
            num_before = max(len(gone), len(self._steady.get(variant, frozenset())))
            self._open[variant] = _Loss(
                began_s=at_s, replicas=gone, num_before=num_before, reason=reason
            )
        else:
            self._open[variant] = replace(loss, replicas=loss.replicas | gone)
        now = self._open[variant]
        left = max(0, now.num_before - len(now.replicas))
        told = f"{reason}; {left} of {now.num_before} replicas left"
        if not left:
            told += ", requests wait for the replacement or are told to come again"
        return Told(kind="lost", variant=variant, reason=told)


def _is_over(loss: _Loss, running: frozenset[str], deployment: DeploymentSeen) -> bool:
    """As many as before, or as many as are wanted now. Serve may still count one that has told of
    its end."""
    is_settled = deployment.status == "HEALTHY" and not running & loss.replicas
    return len(running - loss.replicas) >= loss.num_before or (
        is_settled and deployment.num_starting == 0
    )


def _recovered(variant: str, loss: _Loss, running: frozenset[str], at_s: float) -> Told:
    seconds = max(0.0, at_s - loss.began_s)
    num_ready = len(running - loss.replicas)
    reason = f"ready again {seconds:.1f} s after the loss: {num_ready} replicas ({loss.reason})"
    return Told(kind="recovered", variant=variant, reason=reason, seconds=seconds)
