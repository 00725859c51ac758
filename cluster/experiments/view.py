"""An experiment as the admin API shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from cluster.config.experiment import ExperimentConfig
from cluster.experiments.counts import Agreement, ArmCounts
from cluster.experiments.judge import ArmJudgement, judge
from cluster.experiments.quantiles import quantile_ms
from cluster.experiments.report import Cost, HandedOn
from cluster.experiments.state import ExperimentState

JsonObject = dict[str, object]
_FREE: Mapping[str, Cost] = {}
_NOTHING = HandedOn()


def experiment_view(
    name: str,
    config: ExperimentConfig,
    state: ExperimentState,
    now_s: float,
    costs: Mapping[str, Cost] = _FREE,
    handed_on: HandedOn = _NOTHING,
) -> JsonObject:
    """`costs`: of each variant, of all its callers; an arm's part of it is that of its rows.
    `handed_on`: of its feedback."""
    judgement = judge(config, state.strata, state.peaks)
    is_over = state.status in ("rolled_back", "promoted")
    goal = config.analysis.goal
    mirrored = config.mirror.variants if config.mirror is not None else ()
    arms = [*config.split, *(variant for variant in mirrored if variant not in config.split)]
    return {
        "name": name,
        "status": state.status,
        "verdict": _verdict(state, judgement.verdict),
        "reason": state.reason if is_over else judgement.reason,
        "control": config.control,
        "goal": goal,
        "alpha": config.analysis.alpha,
        "kind": _kind(config),
        "step": state.step,
        "started_s": state.started_s,
        "age_s": round(now_s - state.started_s, 1),
        "sample_ratio": {
            "ok": judgement.sample_ratio.ok,
            "p_value": judgement.sample_ratio.p_value,
        },
        "feedback": {
            "counted": sum(state.total(arm).quality.count for arm in arms),
            "handed_on": handed_on.values,
            "found": handed_on.found,
        },
        "arms": [
            _arm(
                arm,
                state.weights.get(arm, 0.0),
                state.total(arm),
                judgement.arms.get(arm),
                max(1e-9, now_s - state.started_s),
                costs.get(arm, Cost()),
            )
            for arm in arms
        ],
    }


def _verdict(state: ExperimentState, verdict: str) -> str:
    """What was carried out stays the verdict."""
    carried_out = {"rolled_back": "roll_back", "promoted": "promote"}
    return carried_out.get(state.status, verdict)


def _kind(config: ExperimentConfig) -> str:
    if config.canary is not None:
        return "canary"
    return "split" if config.bandit is None else "bandit"


def _arm(
    name: str,
    weight: float,
    counts: ArmCounts,
    judged: ArmJudgement | None,
    age_s: float,
    cost: Cost,
) -> JsonObject:
    quality = counts.quality
    return {
        "name": name,
        "weight": weight,
        "requests": counts.requests,
        "errors": round(counts.errors.total),
        "slow": counts.slow,
        "matched": counts.matched,
        "callers": counts.units,
        "requests_per_s": round(counts.requests / age_s, 3),
        # Others may ask the variant too, by its own name or in another experiment.
        "engine_s": round(cost.engine_s * counts.rows / cost.rows, 3) if cost.rows else 0.0,
        "engine_ms_per_row": 1e3 * cost.engine_s / cost.rows if cost.rows else None,
        "latency_ms": {
            "p50": quantile_ms(counts.latency_buckets, 0.5),
            "p99": quantile_ms(counts.latency_buckets, 0.99),
        },
        "quality": quality.mean if quality.count else None,
        "rated": quality.count,
        "verdict": judged.verdict if judged else None,
        "reason": judged.reason if judged else "the control",
        "improvement": judged.improvement if judged else None,
        "interval": list(judged.interval) if judged and judged.interval else None,
        "p_value": judged.p_value if judged else None,
        "agreement": _agreement(counts.agreement),
    }


def _agreement(found: Agreement) -> Mapping[str, object] | None:
    """Of mirrored requests; None where none were."""
    if found == Agreement():
        return None
    sums = asdict(found)
    return {
        "mirrored": sums["count"],
        "failed": sums["num_failed"],
        "skipped": sums["num_skipped"],
        "unlike": sums["num_unlike"],
        "top1": found.same_top1 / found.num_ranked if found.num_ranked else None,
        "cosine": found.cosine / found.num_cosine if found.num_cosine else None,
        "max_abs_difference": found.max_abs_difference if found.count > found.num_unlike else None,
    }
