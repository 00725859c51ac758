"""What the counts say of an experiment: per arm, and the verdict with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from cluster.config.experiment import ExperimentConfig, Goal
from cluster.experiments.always_valid import half_width, log_evidence, log_evidence_above
from cluster.experiments.counts import ArmCounts, Measure, Stratum
from cluster.experiments.difference import Difference, difference
from cluster.experiments.rare_events import log_evidence_of_more
from cluster.experiments.sample_ratio import SampleRatio, mismatch

Verdict = Literal["keep_going", "promote", "roll_back", "blocked"]

ERROR_EFFECT = 0.02
"""The difference of error rates that the interval of errors is sharpest for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question asked of one arm. `evidence` is ln(e) now; `found`: what is seen, in words."""

    key: str
    evidence: float
    alpha: float
    found: str

    def p_value(self, peaks: Mapping[str, float]) -> float:
        return p_value(max(self.evidence, peaks.get(self.key, 0.0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmJudgement:
    """An arm beside the control. `improvement` of the goal is positive when the arm is better, a
    share of the latency or a difference of rates; `interval` covers it at all times together."""

    name: str
    verdict: Verdict
    reason: str
    improvement: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`peaks`: the most evidence ever seen, by check; what was certain once stays so."""

    verdict: Verdict
    reason: str
    sample_ratio: SampleRatio
    arms: Mapping[str, ArmJudgement]
    peaks: Mapping[str, float]


def p_value(log_evidence: float) -> float:
    return min(1.0, math.exp(-log_evidence)) if log_evidence > 0 else 1.0


def judge(
    config: ExperimentConfig, strata: tuple[Stratum, ...], peaks: Mapping[str, float]
) -> Judgement:
    """The verdict on every arm that is not the control.

    Blocked while the traffic does not split as the weights say; roll back where a guardrail is
    broken; promote where the goal is better beyond doubt. A bandit's weights follow the outcomes,
    so its arms are measured and not judged.
    """
    now = dict(peaks)
    checks = [] if config.bandit else list(_checks(config, strata))
    if not config.bandit:
        _raise(now, "sample_ratio", mismatch(strata))
    for check in checks:
        _raise(now, check.key, check.evidence)
    p_mismatch = p_value(now.get("sample_ratio", 0.0))
    ratio = SampleRatio(ok=p_mismatch > config.analysis.sample_ratio_alpha, p_value=p_mismatch)
    treated = [arm for arm in config.split if arm != config.control]
    arms = {arm: _arm(config, strata, arm, checks, now, ratio) for arm in treated}
    verdict, reason = _overall(config, arms, ratio)
    return Judgement(verdict=verdict, reason=reason, sample_ratio=ratio, arms=arms, peaks=now)


def _overall(
    config: ExperimentConfig, arms: Mapping[str, ArmJudgement], ratio: SampleRatio
) -> tuple[Verdict, str]:
    if config.bandit:
        return "keep_going", "a bandit moves its weights by itself"
    for wanted in ("blocked", "roll_back", "promote"):
        for arm in arms.values():
            if arm.verdict == wanted:
                return arm.verdict, arm.reason
    return "keep_going", next((arm.reason for arm in arms.values()), "there is one arm only")


def _arm(
    config: ExperimentConfig,
    strata: tuple[Stratum, ...],
    arm: str,
    checks: list[Check],
    peaks: Mapping[str, float],
    ratio: SampleRatio,
) -> ArmJudgement:
    goal = config.analysis.goal
    found = difference(strata, config.control, arm, _MEASURES[goal])
    improvement: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    enough = _is_enough(config, strata, arm, goal)
    if found is not None and enough and not config.bandit:
        width = float(half_width(found.variance, _tau(config, goal), _alpha(config)))
        improvement = _better(found.value, goal)
        ends = _better(found.value - width, goal), _better(found.value + width, goal)
        interval = min(ends), max(ends)
        p = p_value(peaks.get(f"{arm}:{goal}", 0.0))
    broken = tuple(
        check.found
        for check in checks
        if check.key.startswith(f"{arm}:no_worse_") and check.p_value(peaks) <= check.alpha
    )
    verdict, reason = _verdict(config, arm, improvement, p, broken, ratio)
    return ArmJudgement(
        name=arm,
        verdict=verdict,
        reason=reason,
        improvement=improvement,
        interval=interval,
        p_value=p,
        broken=broken,
    )


def _verdict(
    config: ExperimentConfig,
    arm: str,
    improvement: float | None,
    p: float | None,
    broken: tuple[str, ...],
    ratio: SampleRatio,
) -> tuple[Verdict, str]:
    if not ratio.ok:
        return "blocked", (
            f"the traffic does not split as the weights say (p = {ratio.p_value:.1g}): "
            "something loses or repeats requests, and the arms cannot be compared"
        )
    if broken:
        return "roll_back", f"{arm}: {'; '.join(broken)}"
    if improvement is None or p is None:
        return "keep_going", f"{arm}: too few requests to say anything of its {_goal(config)}"
    sign = "better" if improvement > 0 else "worse"
    seen = f"{_goal(config)} {abs(improvement):.1%} {sign} than {config.control}'s (p = {p:.2g})"
    if p <= _alpha(config) and improvement > 0:
        return "promote", f"{arm}: {seen}"
    return "keep_going", f"{arm}: {seen}"


def _checks(config: ExperimentConfig, strata: tuple[Stratum, ...]) -> Iterator[Check]:
    goal = config.analysis.goal
    for arm in config.split:
        if arm == config.control:
            continue
        found = difference(strata, config.control, arm, _MEASURES[goal])
        if found is not None and _is_enough(config, strata, arm, goal):
            evidence = float(log_evidence(found.value, found.variance, _tau(config, goal)))
            key = f"{arm}:{goal}"
            yield Check(key=key, evidence=evidence, alpha=_alpha(config), found="")
        if config.guardrails is not None or config.canary is not None:
            yield from _guardrails(config, strata, arm)


def _guardrails(config: ExperimentConfig, strata: tuple[Stratum, ...], arm: str) -> Iterator[Check]:
    rails = config.rails
    control = config.control
    alpha = rails.alpha / (4 * (len(config.split) - 1))

    def check(name: str, evidence: float, found: str) -> Check:
        return Check(key=f"{arm}:no_worse_{name}", evidence=evidence, alpha=alpha, found=found)

    for name, tolerated in (("latency", rails.latency), ("quality", rails.quality)):
        if tolerated is None or not _is_enough(config, strata, arm, name):
            continue
        found = difference(strata, control, arm, _MEASURES[name])
        if found is None:
            continue
        allowed = math.log1p(tolerated) if name == "latency" else tolerated
        evidence = _evidence_of_loss(config, strata, arm, name, allowed)
        # Said of the present weights where they are what gave it away.
        now = difference(strata[-1:], control, arm, _MEASURES[name]) if config.canary else None
        losses = [_loss(each, name) for each in (found, now) if each is not None]
        loss = max(losses)
        shown = math.expm1(loss) if name == "latency" else loss
        yield check(
            name,
            evidence,
            f"{name} {shown:.1%} worse than {control}'s, at most {tolerated:.1%} is tolerated",
        )
    for name, tolerated in (("errors", rails.errors), ("slow", rails.slow)):
        if tolerated is None or (name == "slow" and config.analysis.slo_ms is None):
            continue
        evidence = log_evidence_of_more(
            strata, control, arm, tolerated=tolerated, is_slow=name == "slow"
        )
        yield check(name, evidence, f"more {name} requests than {control}")


def _evidence_of_loss(
    config: ExperimentConfig, strata: tuple[Stratum, ...], arm: str, name: str, allowed: float
) -> float:
    """ln of the e-value against "it loses at most `allowed`".

    A canary is judged over all its steps and at each by itself: what shows only under more load
    would be diluted by the steps before. The mean of the e-values, each step with its share.
    """

    def of(some: tuple[Stratum, ...]) -> float:
        found = difference(some, config.control, arm, _MEASURES[name])
        if found is None:
            return 0.0
        above = _loss(found, name) - allowed
        return float(log_evidence_above(above, found.variance, _tau(config, name)))

    whole = of(strata)
    if config.canary is None:
        return whole
    steps = [of((stratum,)) for stratum in strata]
    missing = max(0, len(config.canary.steps) - len(steps))
    parts = [whole - math.log(2)]
    parts += [each - math.log(2 * (len(steps) + missing)) for each in (*steps, *[0.0] * missing)]
    top = max(parts)
    return top + math.log(sum(math.exp(each - top) for each in parts))


def _loss(found: Difference, name: str) -> float:
    return found.value if name == "latency" else -found.value


def _is_enough(config: ExperimentConfig, strata: tuple[Stratum, ...], arm: str, name: str) -> bool:
    measure = _MEASURES[name]
    return all(
        sum(measure(stratum.of(each)).count for stratum in strata) >= config.analysis.min_requests
        for each in (config.control, arm)
    )


_MEASURES: dict[str, Callable[[ArmCounts], Measure]] = {
    "latency": lambda counts: counts.log_latency,
    "errors": lambda counts: counts.errors,
    "quality": lambda counts: counts.quality,
}


def _tau(config: ExperimentConfig, name: str) -> float:
    analysis = config.analysis
    if name == "latency":
        return math.log1p(analysis.latency_effect)
    return analysis.quality_effect if name == "quality" else ERROR_EFFECT


def _alpha(config: ExperimentConfig) -> float:
    """Shared among the arms (Bonferroni)."""
    return config.analysis.alpha / max(1, len(config.split) - 1)


def _better(value: float, goal: Goal) -> float:
    if goal == "latency":
        return -math.expm1(value)
    return value if goal == "quality" else -value


def _goal(config: ExperimentConfig) -> str:
    return "error rate" if config.analysis.goal == "errors" else config.analysis.goal


def _raise(peaks: dict[str, float], key: str, evidence: float) -> None:
    if evidence > peaks.get(key, 0.0):
        peaks[key] = evidence
