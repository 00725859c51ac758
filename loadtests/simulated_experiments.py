"""Ten thousand experiments that never were: how often the statistics are wrong when they are looked
at all the time, and how soon they are right.

    python -m loadtests.simulated_experiments          # all of it, some minutes; a JSON line a row

Every decision is made by the production functions of `cluster.experiments`.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass, is_dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.config.experiment import AnalysisConfig, ExperimentConfig, GuardrailsConfig
from cluster.experiments.always_valid import log_evidence
from cluster.experiments.counts import NUM_CLUSTERS, ArmCounts, Measure, Stratum
from cluster.experiments.judge import judge
from cluster.experiments.sample_ratio import log_evidence_of_mismatch

SIGMA = 0.5
"""Of the logarithm of latency: the p99 is 3.2 times the median."""
FIRST_LOOK = 100
CHUNK = 250
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeking:
    """Shares of experiments that were ever significant, and the median of requests an arm then."""

    effect: float
    always_valid: float
    naive: float
    median_requests: float | None


def peek(
    effect: float, *, num_experiments: int, num_requests: int, alpha: float, tau: float, seed: int
) -> Peeking:
    """Two arms of normal log latencies, looked at after every pair of requests."""
    random = np.random.default_rng(seed)
    limit = -math.log(alpha)
    z_limit = _z_limit(alpha)
    found: list[float] = []
    naive = 0
    n = np.arange(1, num_requests + 1, dtype=np.float64)
    for begin in range(0, num_experiments, CHUNK):
        size = min(CHUNK, num_experiments - begin)
        a = random.normal(0, SIGMA, (size, num_requests))
        b = random.normal(math.log1p(effect), SIGMA, (size, num_requests))
        mean_a, var_a = _running(a, n)
        mean_b, var_b = _running(b, n)
        variance = (var_a + var_b)[:, FIRST_LOOK:] / n[FIRST_LOOK:]
        x = (mean_b - mean_a)[:, FIRST_LOOK:]
        is_over = log_evidence(x, variance, tau) >= limit
        found += [FIRST_LOOK + int(row.argmax()) for row in is_over if row.any()]
        naive += int((np.abs(x) / np.sqrt(variance) > z_limit).any(axis=1).sum())
    return Peeking(
        effect=effect,
        always_valid=len(found) / num_experiments,
        naive=naive / num_experiments,
        median_requests=float(np.median(found)) if found else None,
    )


def sample_ratio_alarms(
    share: float, *, expected: float, num_experiments: int, num_units: int, alpha: float, seed: int
) -> tuple[float, float]:
    """(alarms of ours, of a chi-square test repeated), looked at after every 100 units."""
    random = np.random.default_rng(seed)
    weights = {"a": expected, "b": 1 - expected}
    limit, chi_limit = -math.log(alpha), _z_limit(alpha) ** 2
    ours = naive = 0
    for _ in range(num_experiments):
        steps = random.binomial(100, share, num_units // 100).cumsum()
        totals = 100 * np.arange(1, len(steps) + 1)
        spread = totals * expected * (1 - expected)
        naive += bool((((steps - totals * expected) ** 2 / spread) > chi_limit).any())
        ours += any(
            log_evidence_of_mismatch({"a": int(a), "b": int(n - a)}, weights) >= limit
            for a, n in zip(steps, totals, strict=True)
        )
    return ours / num_experiments, naive / num_experiments


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Two arms' traffic, and how it hangs together. `moment_sigma`: slow seconds hit both arms
    alike; `batch_sigma`: requests of an arm in one second share this much."""

    slower: float = 0.0
    error_rates: tuple[float, float] = (0.001, 0.001)
    accuracies: tuple[float, float] = (0.75, 0.75)
    moment_sigma: float = 0.0
    batch_sigma: float = 0.0
    arm_share: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Shares of experiments, and the median seconds to a roll-back."""

    roll_back: float
    promote: float
    blocked: float
    naive: float
    median_s: float | None


def judged(
    world: World, *, num_experiments: int, seconds: int, per_s: int, seed: int, alpha: float = 0.01
) -> Judged:
    """Judged once a second by the production code, all guardrails without any tolerance."""
    random = np.random.default_rng(seed)
    config = ExperimentConfig(
        split={"a": 1 - world.arm_share, "b": world.arm_share},
        analysis=AnalysisConfig(alpha=0.05),
        guardrails=GuardrailsConfig(alpha=alpha, latency=0.0, errors=0.0, quality=0.0),
    )
    ends = {"roll_back": 0, "promote": 0, "blocked": 0}
    naive, at_s = 0, []
    for _ in range(num_experiments):
        stratum, peaks = Stratum(weights=config.split), {}
        verdicts: set[str] = set()
        is_naive = False
        for second in range(seconds):
            stratum = stratum.plus(_second(world, second, per_s, random))
            found = judge(config, (stratum,), peaks)
            peaks = dict(found.peaks)
            is_naive = is_naive or _naive_says(stratum)
            if found.verdict != "keep_going" and found.verdict not in verdicts:
                verdicts.add(found.verdict)
                if found.verdict == "roll_back":
                    at_s.append(second + 1)
        for verdict in verdicts:
            ends[verdict] += 1
        naive += is_naive
    return Judged(
        roll_back=ends["roll_back"] / num_experiments,
        promote=ends["promote"] / num_experiments,
        blocked=ends["blocked"] / num_experiments,
        naive=naive / num_experiments,
        median_s=float(np.median(at_s)) if at_s else None,
    )


def _second(
    world: World, second: int, per_s: int, random: np.random.Generator
) -> dict[str, ArmCounts]:
    moment = random.normal(0, world.moment_sigma)
    num_b = random.binomial(per_s, world.arm_share)
    found: dict[str, ArmCounts] = {}
    for index, (arm, n) in enumerate((("a", per_s - num_b), ("b", num_b))):
        mean = moment + random.normal(0, world.batch_sigma) + index * math.log1p(world.slower)
        found[arm] = ArmCounts(
            drawn=n,
            answered=n,
            log_latency=_measure(random.normal(mean, SIGMA, n), second),
            errors=_measure((random.random(n) < world.error_rates[index]) * 1.0, second),
            quality=_measure((random.random(n) < world.accuracies[index]) * 1.0, second),
        )
    return found


def _measure(values: Floats, second: int) -> Measure:
    counts, totals = [0] * NUM_CLUSTERS, [0.0] * NUM_CLUSTERS
    counts[second % NUM_CLUSTERS] = len(values)
    totals[second % NUM_CLUSTERS] = float(values.sum())
    return Measure(counts=tuple(counts), totals=tuple(totals), squares=float((values**2).sum()))


def _naive_says(stratum: Stratum) -> bool:
    """A t-test of latency on independent requests, 5 %, read as if it were read once."""
    a, b = stratum.of("a").log_latency, stratum.of("b").log_latency
    if min(a.count, b.count) < FIRST_LOOK:
        return False
    variance = sum((m.squares / m.count - m.mean**2) / m.count for m in (a, b))
    return abs(b.mean - a.mean) / math.sqrt(variance) > _z_limit(0.05)


def _running(values: Floats, n: Floats) -> tuple[Floats, Floats]:
    mean = values.cumsum(axis=1) / n
    variance = (values**2).cumsum(axis=1) / n - mean**2
    return mean, variance * n / np.maximum(1, n - 1)


def _z_limit(alpha: float) -> float:
    """Two-sided."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erfc(middle / math.sqrt(2)) > alpha else (low, middle)
    return low


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=10_000)
    parser.add_argument("--judged", type=int, default=1_000)
    asked = parser.parse_args()

    def show(what: str, found: object) -> None:
        values = asdict(found) if is_dataclass(found) and not isinstance(found, type) else found
        print(json.dumps({"what": what, "found": values}), flush=True)

    for effect in (0.0, 0.02, 0.05, 0.1, 0.2):
        size = asked.experiments if effect == 0 else max(200, asked.experiments // 10)
        found = peek(
            effect, num_experiments=size, num_requests=5000, alpha=0.05, tau=math.log(1.1), seed=1
        )
        show(f"peeking after every request, effect {effect:.0%}, {size} experiments", found)
    for share, expected in ((0.5, 0.5), (0.9, 0.9), (0.52, 0.5), (0.51, 0.5)):
        alarms = sample_ratio_alarms(
            share,
            expected=expected,
            num_experiments=max(200, asked.experiments // 5),
            num_units=20_000,
            alpha=0.05,
            seed=2,
        )
        show(f"sample ratio, true {share}, expected {expected}: (ours, chi-square)", alarms)
    worlds = {
        "equal": World(),
        "equal, slow moments and batches": World(moment_sigma=0.3, batch_sigma=0.1),
        "equal, 10 % canary": World(arm_share=0.1),
        "20 % slower": World(slower=0.2),
        "20 % slower, slow moments and batches": World(
            slower=0.2, moment_sigma=0.3, batch_sigma=0.1
        ),
        "3 points less accurate": World(accuracies=(0.75, 0.72)),
        "0.1 % -> 0.5 % errors": World(error_rates=(0.001, 0.005)),
    }
    for name, world in worlds.items():
        show(
            f"{name}, judged each second for 120 s at 200 requests/s",
            judged(world, num_experiments=asked.judged, seconds=120, per_s=200, seed=3),
        )


if __name__ == "__main__":
    main()
