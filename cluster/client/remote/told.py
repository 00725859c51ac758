"""Reports that a server's job sent as JSON, as the values that embedded calls give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.optimization.gate.agreement import Agreement
from cluster.optimization.gate.gate import Accuracy, Verdict
from cluster.optimization.gate.intervals import Interval
from cluster.optimization.measure.timing import Timing
from cluster.optimization.profile.report import OperatorTime, ProfileReport
from cluster.optimization.search.report import Candidate, OptimizeReport

Told = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class ToldTiming(Timing):
    """What another machine made of its calls, which did not travel themselves."""

    told: Told = field(default_factory=dict)

    @property
    def p50_ms(self) -> float:
        return float(self.told["latency_ms"])

    @property
    def p99_ms(self) -> float | None:
        found = self.told["p99_ms"]
        return None if found is None else float(found)

    @property
    def best_ms(self) -> float:
        return float(self.told["best_ms"])

    @property
    def cpu_p50_ms(self) -> float:
        return float(self.told["cpu_ms"])

    def as_dict(self) -> dict[str, float | int | None]:
        keys = ("latency_ms", "p99_ms", "best_ms", "cpu_ms", "num_calls")
        return {key: self.told[key] for key in keys}


def profile_report(told: Told, trace: str) -> ProfileReport:
    """Of `ProfileReport.as_dict()`; the dearest operator first."""
    return ProfileReport(
        model=str(told["model"]),
        engine=str(told["engine"]),
        num_calls=int(told["num_calls"]),
        call_us=float(told["call_us"]),
        operators=tuple(
            OperatorTime(
                path=tuple(str(each["name"]).split("/")),
                operator=str(each["operator"]),
                us_per_call=float(each["us"]),
                output_bytes=int(each["output_bytes"]),
            )
            for each in told["layer_timings"]
        ),
        peak_bytes=int(told["peak_memory_bytes"] or 0),
        energy_joule=told["energy_joule"],
        energy_note=str(told["energy"]),
        trace=trace,
    )


def optimize_report(told: Told) -> OptimizeReport:
    """Of `OptimizeReport.as_dict()`. No candidate has a `variant`: the artefacts are there."""
    baseline, chosen = str(told["baseline"]), str(told["chosen"]["name"])
    candidates = tuple(_candidate(each, baseline) for each in told["candidates"])
    return OptimizeReport(
        model=str(told["model"]),
        sha256=str(told["sha256"]),
        level=str(told["level"]),
        baseline=baseline,
        data=str(told["data"]),
        is_real_data=bool(told["validated"]),
        hardware=dict(told["hardware"]),
        libraries=dict(told["libraries"]),
        threads=int(told["threads"]),
        batch_size=int(told["batch_size"]),
        speedup_of="cpu_ms" if told["speedup_of"] == "cpu_ms" else "wall_ms",
        candidates=candidates,
        chosen=next(each for each in candidates if each.name == chosen),
        reason=str(told["reason"]),
        constraints_met=bool(told["constraints_met"]),
        ignored=dict(told["ignored"]),
    )


def _candidate(told: Told, baseline: str) -> Candidate:
    has_timing = told.get("latency_ms") is not None
    ends = told["speedup_interval"]
    return Candidate(
        name=str(told["name"]),
        engine=str(told["engine"]),
        precision=str(told["precision"]),
        says=str(told["says"]),
        model=str(told["model"]),
        status=told["status"],
        reason=str(told["reason"]),
        verdict=None if told["gate"] is None else _verdict(told["gate"]),
        timing=ToldTiming(told=told) if has_timing else None,
        speedup=(
            None if ends is None else Interval(value=told["speedup"], low=ends[0], high=ends[1])
        ),
        size_bytes=int(told["size_bytes"]),
        peak_bytes=int(told["peak_memory_bytes"] or 0),
        was_cached=bool(told["cached"]),
        is_on_front=bool(told["pareto"]),
        is_reference=told["name"] == baseline,
    )


def _verdict(told: Told) -> Verdict:
    agreement, accuracy = told["agreement"], told["accuracy"]
    return Verdict(
        passed=bool(told["passed"]),
        is_validated=bool(told["validated"]),
        is_shown=bool(told["shown"]),
        reasons=tuple(told["reasons"]),
        agreement=Agreement(
            num_items=int(agreement["num_items"]),
            top1=None if agreement["top1"] is None else _interval(agreement["top1"]),
            cosine=_interval(agreement["cosine"]),
            cosine_min=_number(agreement["cosine_min"]),
            kl=agreement["kl"],
            max_abs=_number(agreement["max_abs"]),
        ),
        accuracy=None
        if accuracy is None
        else Accuracy(
            num_items=int(accuracy["num_items"]),
            original=_interval(accuracy["original"]),
            optimised=_interval(accuracy["optimised"]),
            change_points=_interval(accuracy["change_points"]),
        ),
    )


def _interval(told: Told) -> Interval:
    return Interval(**{key: _number(told[key]) for key in ("value", "low", "high")})


def _number(value: Any) -> float:
    """JSON has no infinity: it comes as null."""
    return math.inf if value is None else float(value)
