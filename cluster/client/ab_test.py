"""Two models that share the calls, and what can be said of their difference."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal, Self

from cluster.client.model import Model
from cluster.client.values import Told
from cluster.errors import ConfigError, InvalidRequest
from cluster.experiments.always_valid import log_evidence
from cluster.routing.split import Arm, choose_arm
from cluster.tensors import Array

Side = Literal["a", "b"]
MIN_ANSWERS = 20
TAU = 0.1
"""Effects on log latency that one expects: a tenth more or less."""
ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmStatistics(Told):
    """`avg_latency_ms` None before the first answer, `avg_quality` before the first report."""

    name: str
    requests: int
    errors: int
    avg_latency_ms: float | None
    p50_latency_ms: float | None
    avg_quality: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AbStatistics(Told):
    """`improvement_percent`: how much less time an answer of b takes than one of a on average
    (negative: more); None until both answered.

    `p_value`: of no difference in log latency, valid however often it is read (1.0 with fewer than
    20 answers of either). Calls are taken for independent, which those of a busy minute are not: a
    server's own experiments judge by clusters. `is_significant` at 5 %.
    """

    model_a: ArmStatistics
    model_b: ArmStatistics
    improvement_percent: float | None
    p_value: float
    is_significant: bool


@dataclass(slots=True)
class _Counts:
    requests: int = 0
    errors: int = 0
    latencies_s: list[float] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)


class ABTest:
    """`traffic_split` is b's share of the calls. Chosen by the function that chooses inside a
    server's experiment: a `key` (a user) always meets the same model.

    Closing the test leaves the models open: they are their owner's.
    """

    def __init__(
        self, a: Model, b: Model, traffic_split: float = 0.5, *, name: str = "ab", seed: int = 0
    ) -> None:
        """Raises: ConfigError for a share that is not between 0 and 1."""
        is_number = isinstance(traffic_split, int | float) and not isinstance(traffic_split, bool)
        if not is_number or not 0 <= traffic_split <= 1:
            raise ConfigError(
                f"traffic_split is {traffic_split!r}; allowed: 0 to 1, b's share",
                key="traffic_split",
                value=str(traffic_split),
                allowed="0 to 1",
            )
        self.models: dict[Side, Model] = {"a": a, "b": b}
        self._arms = (
            Arm(variant="a", weight=1 - traffic_split),
            Arm(variant="b", weight=traffic_split),
        )
        self._name = name
        self._random = random.Random(seed)
        self._lock = Lock()
        self._counts: dict[Side, _Counts] = {"a": _Counts(), "b": _Counts()}
        self._least_p = 1.0
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def choose(self, key: str = "") -> Side:
        """The model that a call with this key meets; without a key it is drawn."""
        with self._lock:
            draw = self._random.random()
        found = choose_arm(self._arms, experiment=self._name, key=key, draw=draw).variant
        return "a" if found == "a" else "b"

    def predict(
        self, inputs: Any = None, /, *, key: str = "", outputs: Sequence[str] = (), **named: Any
    ) -> dict[str, Array]:
        """What the chosen model answers. Raises: what the model raises, which is counted."""
        if self._is_closed:
            raise InvalidRequest("the test was closed")
        side = self.choose(key)
        counts = self._counts[side]
        started_s = time.perf_counter()
        try:
            answer = self.models[side].predict(inputs, outputs=outputs, **named)
        except BaseException:
            with self._lock:
                counts.requests += 1
                counts.errors += 1
            raise
        seconds = time.perf_counter() - started_s
        with self._lock:
            counts.requests += 1
            counts.latencies_s.append(seconds)
        return answer

    def report_quality(self, side: Side, value: float) -> None:
        """How good an answer of one side turned out to be, in any unit; larger is better."""
        if side not in self._counts:
            raise InvalidRequest(f"side is {side!r}; allowed: a, b")
        with self._lock:
            self._counts[side].quality.append(float(value))

    def get_statistics(self) -> AbStatistics:
        """Everything counted so far."""
        with self._lock:
            a, b = self._of("a"), self._of("b")
            first, second = self._counts["a"].latencies_s, self._counts["b"].latencies_s
            self._least_p = min(self._least_p, _p_value(first, second))
            improvement = None
            if a.avg_latency_ms and b.avg_latency_ms is not None:
                improvement = 100 * (1 - b.avg_latency_ms / a.avg_latency_ms)
            return AbStatistics(
                model_a=a,
                model_b=b,
                improvement_percent=improvement,
                p_value=self._least_p,
                is_significant=self._least_p < ALPHA,
            )

    def close(self) -> None:
        """The models stay open. Closing twice does nothing."""
        self._is_closed = True

    def unload(self) -> None:
        """`close`, and the models too."""
        self.close()
        for model in self.models.values():
            model.unload()

    def _of(self, side: Side) -> ArmStatistics:
        counts = self._counts[side]
        seconds = counts.latencies_s
        return ArmStatistics(
            name=self.models[side].name,
            requests=counts.requests,
            errors=counts.errors,
            avg_latency_ms=1e3 * statistics.fmean(seconds) if seconds else None,
            p50_latency_ms=1e3 * statistics.median(seconds) if seconds else None,
            avg_quality=statistics.fmean(counts.quality) if counts.quality else None,
        )


def _p_value(a: Sequence[float], b: Sequence[float]) -> float:
    if min(len(a), len(b)) < MIN_ANSWERS:
        return 1.0
    logs = [[math.log(max(seconds, 1e-9)) for seconds in arm] for arm in (a, b)]
    variance = sum(statistics.variance(arm) / len(arm) for arm in logs)
    if variance <= 0:
        return 1.0
    difference = statistics.fmean(logs[1]) - statistics.fmean(logs[0])
    return min(1.0, math.exp(-float(log_evidence(difference, variance, TAU))))
