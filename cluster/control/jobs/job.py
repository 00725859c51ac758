"""One piece of work beside serving, and what becomes of all of them: states, limits, room.

queued -> running -> succeeded | failed | cancelled; what has ended does not change any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cluster.control.jobs.request import JobRequest, OptimizeRequest
from cluster.errors import InvalidRequest, Overloaded

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
ENDED: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})
MAX_STEPS = 500
"""Of progress that is told; a search has some thirty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """`max_running`: at once, in the whole cluster: each takes cores from what is served beside it,
    and two searches on a machine spoil each other's figures. Bytes: of the inputs that wait, of one
    result, and of all results that are kept. `max_artefacts`: searches of which what they chose is
    kept, to be added to the store later."""

    max_running: int = 1
    max_waiting: int = 8
    max_waiting_bytes: int = 512 * 2**20
    max_kept: int = 32
    max_kept_bytes: int = 128 * 2**20
    max_result_bytes: int = 64 * 2**20
    max_artefacts: int = 4


LIMITS = JobLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`reason`: why it waits, where it runs or why it ended. `result`: JSON. `error`: the name of
    an error of ours and its message. Times are seconds since 1970."""

    id: str
    request: JobRequest
    num_input_bytes: int = 0
    state: State = "queued"
    reason: str = "waits for its turn"
    created_s: float
    started_s: float | None = None
    ended_s: float | None = None
    steps: tuple[str, ...] = ()
    result: bytes = b""
    error: tuple[str, str] | None = None

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    def started(self, at_s: float, reason: str) -> Job:
        if self.state != "queued":
            return self
        return replace(self, state="running", started_s=at_s, reason=reason)

    def running(self, reason: str) -> Job:
        """`reason`: where it runs, now that it does."""
        return replace(self, reason=reason) if self.state == "running" else self

    def told(self, step: str) -> Job:
        """`step`: what it does now."""
        if self.state != "running" or len(self.steps) >= MAX_STEPS:
            return self
        return replace(self, steps=(*self.steps, step[:300]))

    def succeeded(self, at_s: float, result: bytes) -> Job:
        return self._ended("succeeded", at_s, "", result=result)

    def failed(self, at_s: float, kind: str, message: str) -> Job:
        return self._ended("failed", at_s, message, error=(kind, message))

    def cancelled(self, at_s: float, reason: str) -> Job:
        return self._ended("cancelled", at_s, reason)

    def _ended(
        self,
        state: State,
        at_s: float,
        reason: str,
        *,
        result: bytes = b"",
        error: tuple[str, str] | None = None,
    ) -> Job:
        """The first end counts: one that is cancelled while it ends stays what it was."""
        if self.has_ended:
            return self
        return replace(self, state=state, ended_s=at_s, reason=reason, result=result, error=error)

    def as_dict(self) -> dict[str, object]:
        """Without the result."""
        kind, message = self.error or ("", "")
        return {
            "id": self.id,
            "kind": self.request.kind,
            "model": self.request.model,
            "state": self.state,
            "reason": self.reason,
            "created_s": self.created_s,
            "started_s": self.started_s,
            "ended_s": self.ended_s,
            "steps": list(self.steps),
            "error": {"type": kind, "message": message} if self.error else None,
        }


def admit(jobs: Sequence[Job], num_bytes: int, limits: JobLimits = LIMITS) -> None:
    """Raises: Overloaded when a job with so many bytes of inputs may not wait as well."""
    waiting = [each for each in jobs if each.state == "queued"]
    if len(waiting) >= limits.max_waiting:
        raise Overloaded(f"{len(waiting)} jobs wait already; ask again later", retry_after_s=30)
    if sum(each.num_input_bytes for each in waiting) + num_bytes > limits.max_waiting_bytes:
        raise Overloaded(
            f"the inputs of the jobs that wait may take {limits.max_waiting_bytes} bytes; send "
            "fewer items, or ask again later",
            retry_after_s=30,
        )


def next_to_start(jobs: Sequence[Job], limits: JobLimits = LIMITS) -> Job | None:
    """The one that has waited longest, where there is a place for it."""
    if sum(each.state == "running" for each in jobs) >= limits.max_running:
        return None
    waiting = [each for each in jobs if each.state == "queued"]
    return min(waiting, key=lambda each: each.created_s, default=None)


def to_forget(jobs: Sequence[Job], limits: JobLimits = LIMITS) -> tuple[str, ...]:
    """Ended jobs that there is no room for any more, those that ended first."""
    ended = sorted((j for j in jobs if j.has_ended), key=lambda j: j.ended_s or 0.0, reverse=True)
    gone: list[str] = []
    num_bytes = 0
    for index, job in enumerate(ended):
        num_bytes += len(job.result)
        if index >= limits.max_kept or num_bytes > limits.max_kept_bytes:
            gone.append(job.id)
    return tuple(gone)


def with_artefact(jobs: Sequence[Job], limits: JobLimits = LIMITS) -> frozenset[str]:
    """The jobs of which what they made stays on disk: those that are not over, and the last
    searches that succeeded."""
    made = [each for each in jobs if each.request.kind == "optimize"]
    done = sorted((j for j in made if j.state == "succeeded"), key=lambda j: -(j.ended_s or 0.0))
    alive = [each for each in made if not each.has_ended]
    return frozenset(each.id for each in (*alive, *done[: limits.max_artefacts]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What Ray is asked for, and the process's priority for the cores (0, as all, to 19, last)."""

    num_cpus: float
    num_gpus: float
    nice: int
    reason: str


BESIDE_NICE = 10


def _gpus_of(request: JobRequest) -> float:
    """On one node: a search sees no others than those that it reserved."""
    if not isinstance(request, OptimizeRequest) or request.target_device == "cpu":
        return 0.0
    if request.target_device == "cuda":
        return 1.0
    wanted = request.options.get("num_gpus", 2)
    is_number = isinstance(wanted, int | float) and not isinstance(wanted, bool)
    return float(max(2, int(wanted))) if is_number else 2.0  # the search says what is wrong


def reserve(
    request: JobRequest, free: Mapping[str, float], whole: Mapping[str, float]
) -> Reservation:
    """`free`, `whole`: of the cluster's resources, as Ray names them.

    A core where one is free, so that the job lands where there is room; else it runs beside what is
    served, which goes first (a laptop's replicas may reserve all its cores, and a job that waited
    for one would wait for ever). A GPU is never shared: the job waits for a free one.
    Raises: InvalidRequest when the cluster has no GPU, and one is needed.
    """
    num_gpus = _gpus_of(request)
    there = whole.get("GPU", 0.0)
    if num_gpus > there:
        target = request.target_device if isinstance(request, OptimizeRequest) else "cpu"
        if not there:
            raise InvalidRequest(
                f"target_device is '{target}', and the cluster has no GPU; allowed here: cpu"
            )
        raise InvalidRequest(
            f"target_device '{target}' takes {num_gpus:g} GPUs here, and the cluster has "
            f"{there:g}; allowed here: cpu, cuda"
        )
    if free.get("CPU", 0.0) >= 1:
        return Reservation(
            num_cpus=1, num_gpus=num_gpus, nice=BESIDE_NICE, reason="on a core of its own"
        )
    return Reservation(
        num_cpus=0,
        num_gpus=num_gpus,
        nice=19,
        reason="beside what is served, which goes first: no core is unreserved",
    )
