"""What flows through the system: a request for a model, and its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from cluster.errors import InvalidRequest
from cluster.tensors import Tensor

Parameter = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionSlice:
    """Bytes of a registered shared-memory region; `offset` counts from the region's start."""

    region: str
    offset: int
    byte_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceStep:
    """A request's place in its sequence. The ids 7 and "7" are two sequences."""

    id: int | str
    is_start: bool = False
    is_end: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedOutput:
    """An output the caller named. `num_classes` > 0 asks for the classification extension;
    `place` is where in shared memory the caller wants it."""

    name: str
    is_binary: bool | None = None
    num_classes: int = 0
    place: RegionSlice | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Assignment:
    """The arm of an experiment that a request meets: by chance, by its caller's key, or by a rule
    on its headers. `stratum`: since when the weights are what they are, as its door counts."""

    experiment: str
    arm: str
    by: Literal["chance", "key", "rule"]
    cluster: int = 0
    stratum: int = 0


class Follower(Protocol):
    """Who is told how a request ended: its span, its line in the access log."""

    def ended(self, request: InferenceRequest, variant: str, outcome: str) -> None: ...


@dataclass(slots=True, kw_only=True, eq=False)
class InferenceRequest:
    """One call of one model, free of any transport. Made once a request and not changed after;
    not frozen, because setting a field of a frozen one costs four times as much.

    `version` is empty when the caller named none. `outputs` empty means "all of them".
    `deadline_s` is on the receiving process's monotonic clock; None means the server's default.
    `affinity_key` holds the sticky routing key (empty: none). `tracking_id` is what the answer's
    `x-request-id` says: the caller's own, or one made for a model under an experiment.
    `is_member`: an ensemble asks.
    `trace_parent` and `trace_state` are the caller's headers, unchecked; `trace` is what goes on to
    replicas, empty unless the request is sampled.
    """

    model: str
    version: str = ""
    request_id: str = ""
    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    parameters: dict[str, Parameter] = field(default_factory=dict)
    deadline_s: float | None = None
    priority: int = 0
    tenant: str = ""
    affinity_key: str = ""
    trace_parent: str = ""
    trace_state: str = ""
    trace: str = ""
    follower: Follower | None = None
    tracking_id: str = ""
    assignment: Assignment | None = None
    is_member: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class InferenceResponse:
    """The answer; not frozen, like the request.

    `variant` is the model name of the variant that computed it (its arm's name)."""

    model: str
    version: str
    request_id: str = ""
    variant: str = ""
    outputs: tuple[Tensor, ...]
    parameters: dict[str, Parameter] = field(default_factory=dict)

    def output(self, name: str) -> Tensor:
        return next(tensor for tensor in self.outputs if tensor.name == name)


def rows_of(request: InferenceRequest) -> int:
    """Of a request to a batched model, as its first input says before anybody checked it."""
    shape = request.inputs[0].shape if request.inputs else ()
    return max(1, shape[0]) if shape else 1


def sequence_of(parameters: Mapping[str, Parameter]) -> SequenceStep | None:
    """None without an id; 0 and "" are none. The parameters' types were checked when decoded."""
    found = parameters.get("sequence_id")
    if not found or not isinstance(found, int | str):
        return None
    return SequenceStep(
        id=found,
        is_start=bool(parameters.get("sequence_start", False)),
        is_end=bool(parameters.get("sequence_end", False)),
    )


def time_left_s(request: InferenceRequest, *, limit_s: float, now_s: float) -> float:
    """How long it may take: the caller's `timeout` (microseconds) and deadline can shorten the
    server's limit, not lengthen it. Raises: InvalidRequest."""
    if request.deadline_s is not None:
        limit_s = min(limit_s, max(0.0, request.deadline_s - now_s))
    asked = request.parameters.get("timeout")
    if asked is None or asked == 0:
        return limit_s
    if isinstance(asked, bool) or not isinstance(asked, int | str) or not str(asked).isdecimal():
        raise InvalidRequest(
            f"parameter 'timeout' must be a whole number of microseconds, got {asked!r}"
        )
    return min(limit_s, int(asked) / 1e6)
