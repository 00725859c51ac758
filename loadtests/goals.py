"""The ratios of a run by name, each with its interval and the goal it is held against."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from loadtests.floor import p99_floor_ms
from loadtests.intervals import MAX_AA_DEVIATION, ratio_of

REFERENCES = ("bare_loop",)
"""Measured beside the peers, but no server: never "the best peer"."""
SOAK_REQUESTS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """`low` to `high`: 95 % interval, where there is one. `num_pairs`: 0 where nothing was paired.

    A goal is met, or missed, when the whole interval says so; else, and from one pair, it is open.
    """

    name: str
    what: str
    value: float
    low: float | None = None
    high: float | None = None
    kind: Literal["at least", "at most", "shown"] = "shown"
    bound: float | None = None
    num_pairs: int = 0

    @property
    def verdict(self) -> Literal["met", "missed", "open", ""]:
        """Empty without a goal."""
        if self.bound is None:
            return ""
        if self.num_pairs == 1:
            return "open"
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        bad, good = (low, high) if self.kind == "at least" else (-high, -low)
        bound = self.bound if self.kind == "at least" else -self.bound
        return "met" if bad >= bound else "missed" if good < bound else "open"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


ISSUED = {
    "identity.rate_vs_mosec": ("requests/s at 64 connections, Squadron / mosec", "at least 3"),
    "identity.rate_vs_bare_loop": (
        "requests/s at 64 connections, Squadron / bare_loop",
        "at least 0.5",
    ),
    "identity.p50_c1_ms": ("p50 at one connection, milliseconds", "at most 0.25"),
    "identity.binary_vs_json": ("requests/s with binary tensors / with JSON", "at least 1"),
    "identity.other_process_vs_same": (
        "requests/s at 64 connections, model in another process / in the door",
        "at least 0.5",
    ),
    "identity.grpc_bare_vs_ours": (
        "gRPC calls/s, a bare grpc.aio server / Squadron",
        "at most 1.3",
    ),
    "identity.memory_growth": (
        f"resident memory after {SOAK_REQUESTS:,} requests / after 50,000",
        "at most 1.05",
    ),
    "minilm-int8.rate_vs_best_peer": ("requests/s, Squadron / best peer", "at least 1.1"),
    "efficientnet-lite0.rate_vs_best_peer": ("requests/s, Squadron / best peer", "at least 1.1"),
    "efficientnet-lite0.serving_vs_engine": ("L3 requests/s / L0 rows/s", "at least 0.95"),
    **{
        f"{work}.p99_at_70_percent": ("p99 at 70 % load / unloaded p50", "at most 3")
        for work in ("identity", "identity-1mb", "minilm-int8", "efficientnet-lite0")
    },
    **{
        f"{work}.goodput_at_3x": ("goodput at 3x the capacity / its peak", "at least 0.95")
        for work in ("identity", "identity-1mb", "minilm-int8", "efficientnet-lite0")
    },
}
"""Everything that has a goal: by name, what it is and the goal."""


def not_measured(goals: list[Goal]) -> list[str]:
    """Names of `ISSUED` that the run gives no verdict on."""
    judged = {goal.name for goal in goals if goal.bound is not None}
    return [name for name in ISSUED if name not in judged]


def goals_of(found: dict[str, Any]) -> list[Goal]:
    """Every ratio that the run's figures allow; what was not measured is absent."""
    goals: list[Goal] = []
    for name, work in found["works"].items():
        goals += _against_peers(name, work)
        goals += _own(name, work)
    identity = found["works"].get("identity", {})
    goals += _identity(identity)
    return goals


def _against_peers(work: str, figures: dict[str, Any]) -> list[Goal]:
    goals = []
    for peer, each in figures["peers"].items():
        bound = {("identity", "mosec"): 3.0, ("identity", "bare_loop"): 0.5}.get((work, peer))
        goals.append(
            _ratio(
                f"{work}.rate_vs_{peer}",
                f"{work}: requests/s at 64 connections, Squadron / {peer}",
                each["rate_ratio"],
                kind="at least" if bound else "shown",
                bound=bound,
            )
        )
        if "cpu_ratio" in each:
            goals.append(
                _ratio(
                    f"{work}.cpu_vs_{peer}",
                    f"{work}: server CPU a request at 64 connections, Squadron / {peer}",
                    each["cpu_ratio"],
                )
            )
    servers = {n: each for n, each in figures["peers"].items() if n not in REFERENCES}
    if servers:
        best = max(servers, key=lambda name: servers[name]["b_per_s"])
        has_goal = work in ("minilm-int8", "efficientnet-lite0")
        goals.append(
            _ratio(
                f"{work}.rate_vs_best_peer",
                f"{work}: requests/s at 64 connections, Squadron / best peer ({best})",
                servers[best]["rate_ratio"],
                kind="at least" if has_goal else "shown",
                bound=1.1 if has_goal else None,
            )
        )
    return goals


def _own(work: str, figures: dict[str, Any]) -> list[Goal]:
    goals = []
    if "control" in figures:
        control = figures["control"]["rate_ratio"]
        what = f"{work}: A/A control (further than {MAX_AA_DEVIATION:.0%} from 1 voids the run)"
        goals.append(_ratio(f"{work}.control", what, control))
    levels = figures.get("levels", {})
    if "L3_over_L0" in levels:
        has_goal = work == "efficientnet-lite0"
        goals.append(
            _ratio(
                f"{work}.serving_vs_engine",
                f"{work}: L3 requests/s / L0 rows/s at the batch sizes seen",
                levels["L3_over_L0"],
                kind="at least" if has_goal else "shown",
                bound=0.95 if has_goal else None,
            )
        )
    if "L3_against_L2" in levels:
        goals.append(
            _ratio(
                f"{work}.serve_vs_without_ray",
                f"{work}: the Serve application (L3) / door and model in one process (L2)",
                levels["L3_against_L2"]["rate_ratio"],
            )
        )
    if "encodings" in figures:
        goals.append(
            _ratio(
                f"{work}.binary_vs_json",
                f"{work}: requests/s with binary tensors / with JSON",
                figures["encodings"]["rate_ratio"],
                kind="at least",
                bound=1.0,
            )
        )
    return goals + _latency(work, figures) + _goodput(work, figures)


def _latency(work: str, figures: dict[str, Any]) -> list[Goal]:
    for load in figures.get("loads", ()):
        p99 = load["quantiles_ms"].get("p99")
        if load["share"] == 0.7 and p99 is not None:
            alone_ms = figures["p50_c1_ms"]
            return [
                Goal(
                    name=f"{work}.p99_at_70_percent",
                    what=f"{work}: p99 of the open loop at 70 % load / p50 of one connection",
                    value=p99["ms"] / alone_ms,
                    low=p99["low_ms"] / alone_ms,
                    high=p99["high_ms"] / alone_ms,
                    kind="at most",
                    bound=3.0,
                ),
                *_latency_floor(work, figures, load["offered_per_s"]),
            ]
    return []


def _latency_floor(work: str, figures: dict[str, Any], rate_per_s: float) -> list[Goal]:
    """What is left of the p99 when serving costs nothing but the engine's batches and the queue."""
    curve = figures.get("levels", {}).get("L0_curve_ms")
    if curve is None:
        return []
    curve_ms = {int(rows): took_ms for rows, took_ms in curve.items()}
    alone_ms = figures["p50_c1_ms"]
    beside_ms = max(0.0, alone_ms - curve_ms[1])
    return [
        Goal(
            name=f"{work}.p99_at_70_percent_floor",
            what=f"{work}: the same of a replica without costs of its own, simulated from L0",
            value=(p99_floor_ms(curve_ms, rate_per_s=rate_per_s) + beside_ms) / alone_ms,
        )
    ]


def _goodput(work: str, figures: dict[str, Any]) -> list[Goal]:
    points = figures.get("overloads", ())
    most = [each for each in points if each["share"] == 3.0]
    if not most:
        return []
    peak = max(each["good_per_s"] for each in points)
    return [
        Goal(
            name=f"{work}.goodput_at_3x",
            what=f"{work}: goodput (in {most[0]['slo_ms']:.0f} ms) at 3x the capacity / its peak",
            value=most[0]["good_per_s"] / peak if peak else 0.0,
            kind="at least",
            bound=0.95,
        )
    ]


def _identity(figures: dict[str, Any]) -> list[Goal]:
    goals = []
    if "p50_c1_ms" in figures:
        goals.append(
            Goal(
                name="identity.p50_c1_ms",
                what="identity: p50 at one connection, milliseconds",
                value=figures["p50_c1_ms"],
                kind="at most",
                bound=0.25,
            )
        )
    if "apart" in figures:
        goals.append(
            _ratio(
                "identity.other_process_vs_same",
                "identity: requests/s at 64 connections, model in another process / in the door",
                figures["apart"]["rate_ratio"],
                kind="at least",
                bound=0.5,
            )
        )
    if "grpc" in figures:
        blocks = figures["grpc"]["blocks"]
        ours = [each["ok_per_s"] for each in blocks if each["label"] == "A"]
        bare = [each["ok_per_s"] for each in blocks if each["label"] == "B"]
        goals.append(
            _ratio(
                "identity.grpc_bare_vs_ours",
                "identity: gRPC calls/s at 64 calls, a bare grpc.aio server / Squadron",
                asdict(ratio_of(bare, ours)),
                kind="at most",
                bound=1.3,
            )
        )
    if "soak" in figures:
        soak = figures["soak"]
        goals.append(
            Goal(
                name="identity.memory_growth",
                what=f"resident memory after {soak['requests']} requests / after "
                f"{soak['settled_after']}, the process that grew most",
                value=soak["largest_growth"],
                kind="at most",
                # The goal is about a million requests; fewer show something, but decide nothing.
                bound=1.05 if soak["requests"] >= SOAK_REQUESTS else None,
            )
        )
    return goals


def _ratio(
    name: str,
    what: str,
    ratio: dict[str, Any],
    *,
    kind: Literal["at least", "at most", "shown"] = "shown",
    bound: float | None = None,
) -> Goal:
    return Goal(
        name=name,
        what=what,
        value=ratio["value"],
        low=ratio["low"],
        high=ratio["high"],
        kind=kind,
        bound=bound,
        num_pairs=ratio["num_pairs"],
    )
