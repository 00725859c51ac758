"""Two models that share the calls, and what can be said of their difference."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal, Self

from cluster.client.model import Model
from cluster.client.values import Told
from cluster.errors import ConfigError, InvalidRequest
from cluster.experiments.always_valid import half_width, log_evidence, log_evidence_above
from cluster.experiments.judge import Verdict, p_value
from cluster.experiments.sample_ratio import log_evidence_of_mismatch
from cluster.routing.split import Arm, choose_arm
from cluster.tensors import Array

Side = Literal["a", "b"]
_BROKEN: Mapping[Side, Verdict] = {"b": "roll_back", "a": "promote"}
"""What is to be done with b when this one fails more."""
MIN_ANSWERS = 20
TAU = 0.1
"""Effects on log latency that one expects: a tenth more or less."""
ALPHA = 0.05
SAMPLE_RATIO_ALPHA = 0.001
ERROR_TAU = 0.02
"""Differences of error rates that one expects, as a server's experiments take them."""


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
class SampleRatioState(Told):
    """Whether the calls that were drawn split as `traffic_split` says; `p_value` is valid however
    often it is read."""

    ok: bool
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AbStatistics(Told):
    """`improvement_percent`: how much less time an answer of b takes than one of a on average
    (negative: more); None until both answered. `interval_percent` covers the same of the typical
    answer (geometric means) at all times together with 95 %; None with fewer than 20 answers of
    either.

    `verdict` as a server's experiments say it, with its `reason`: `promote` or `roll_back` b,
    `keep_going`, or `blocked` while the calls without a key do not split as they should. A model
    that fails more calls than the other beyond doubt (5 %, at all times together) is not the better
    one, however quickly it answers the rest.
    `p_value`: of no difference in log latency, valid however often it is read (1.0 with fewer than
    20 answers of either). Calls are taken for independent, which those of a busy minute are not: a
    server's own experiments judge by clusters. `is_significant` at 5 %.
    """

    model_a: ArmStatistics
    model_b: ArmStatistics
    improvement_percent: float | None
    p_value: float
    is_significant: bool
    interval_percent: tuple[float, float] | None
    sample_ratio: SampleRatioState
    verdict: Verdict
    reason: str


@dataclass(slots=True)
class _Counts:
    requests: int = 0
    errors: int = 0
    drawn: int = 0
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
        self._least_ratio_p = 1.0
        self._least_error_p: dict[Side, float] = {"a": 1.0, "b": 1.0}
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
        side: Side = "a" if found == "a" else "b"
        if not key:
            with self._lock:
                self._counts[side].drawn += 1
        return side

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
            seen = _difference(first, second)
            interval = None
            if seen is not None:
                evidence = float(log_evidence(seen.value, seen.variance, TAU))
                self._least_p = min(self._least_p, p_value(evidence))
                width = float(half_width(seen.variance, TAU, ALPHA))
                ends = (-100 * math.expm1(seen.value + side * width) for side in (1, -1))
                interval = next(ends), next(ends)
            ratio = self._sample_ratio()
            self._look_at_errors()
            verdict, reason = self._verdict(seen, ratio)
            improvement = None
            if a.avg_latency_ms and b.avg_latency_ms is not None:
                improvement = 100 * (1 - b.avg_latency_ms / a.avg_latency_ms)
            return AbStatistics(
                model_a=a,
                model_b=b,
                improvement_percent=improvement,
                p_value=self._least_p,
                is_significant=self._least_p < ALPHA,
                interval_percent=interval,
                sample_ratio=ratio,
                verdict=verdict,
                reason=reason,
            )

    def close(self) -> None:
        """The models stay open. Closing twice does nothing."""
        self._is_closed = True

    def unload(self) -> None:
        """`close`, and the models too."""
        self.close()
        for model in self.models.values():
            model.unload()

    def _sample_ratio(self) -> SampleRatioState:
        drawn = {side: counts.drawn for side, counts in self._counts.items()}
        weights = {arm.variant: arm.weight for arm in self._arms}
        evidence = log_evidence_of_mismatch(drawn, weights)  # type: ignore[arg-type]  # sides
        self._least_ratio_p = min(self._least_ratio_p, p_value(evidence))
        is_ok = self._least_ratio_p > SAMPLE_RATIO_ALPHA
        return SampleRatioState(ok=is_ok, p_value=self._least_ratio_p)

    def _look_at_errors(self) -> None:
        """Whether one of them fails more; each side has half of the 5 %."""
        a, b = self._counts["a"], self._counts["b"]
        if min(a.requests, b.requests) < MIN_ANSWERS:
            return
        # One more of either kind: rates of 0 and 1 would be certain.
        rates = [(each.errors + 1) / (each.requests + 2) for each in (a, b)]
        variance = sum(
            rate * (1 - rate) / each.requests for rate, each in zip(rates, (a, b), strict=True)
        )
        more = b.errors / b.requests - a.errors / a.requests
        differences: dict[Side, float] = {"b": more, "a": -more}
        for side, above in differences.items():
            evidence = float(log_evidence_above(above, variance, ERROR_TAU))
            self._least_error_p[side] = min(self._least_error_p[side], p_value(evidence))

    def _verdict(self, seen: _Difference | None, ratio: SampleRatioState) -> tuple[Verdict, str]:
        if not ratio.ok:
            return "blocked", (
                f"the calls do not split as traffic_split says (p = {ratio.p_value:.1g}): "
                "something calls one model more often"
            )
        rates = {side: each.errors / max(1, each.requests) for side, each in self._counts.items()}
        for side, verdict in _BROKEN.items():
            if self._least_error_p[side] < ALPHA / 2:
                other: Side = "a" if side == "b" else "b"
                return verdict, (
                    f"{side} fails {rates[side]:.1%} of its calls and {other} {rates[other]:.1%} "
                    f"(p = {self._least_error_p[side]:.2g})"
                )
        if seen is None:
            return "keep_going", f"fewer than {MIN_ANSWERS} answers of one of them"
        share = -math.expm1(seen.value)
        word = "less" if share > 0 else "more"
        text = f"b takes {abs(share):.1%} {word} time than a (p = {self._least_p:.2g})"
        if self._least_p >= ALPHA:
            return "keep_going", text
        return ("promote" if share > 0 else "roll_back"), text

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """Of log latency, b's minus a's, and the variance of that."""

    value: float
    variance: float


def _difference(a: Sequence[float], b: Sequence[float]) -> _Difference | None:
    if min(len(a), len(b)) < MIN_ANSWERS:
        return None
    logs = [[math.log(max(seconds, 1e-9)) for seconds in arm] for arm in (a, b)]
    variance = sum(statistics.variance(arm) / len(arm) for arm in logs)
    if variance <= 0:
        return None
    value = statistics.fmean(logs[1]) - statistics.fmean(logs[0])
    return _Difference(value=value, variance=variance)
