"""A day and bursts, in compressed time, against a running Squadron that scales.

    python -m loadtests.live_traces --short        two minutes: a day of 60 s, 40 s of bursts
    python -m loadtests.live_traces                a quarter of an hour: three days of 240 s, bursts
    python -m loadtests.live_traces bursty --json  one trace, one JSON line

Each trace has a server of its own, one variant of 0.1 s a request and an objective of 0.5 s; its
engine waits, so that what is measured is the scaling, on any number of cores. Printed are the share
of answers in time, replicas over time, every decision with its reason, and what the simulator says
of the same arrivals. A day is a season (`season_s`): from the second one on it is foreseen, and in
the long run the first counts for nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.simulation.autoscaling import traces
from cluster.simulation.autoscaling.replicas import OurPolicy, Replicas, Workload
from loadtests.live_scaling import (
    BODY,
    SCALING,
    SERVICE_S,
    SLO_S,
    STARTUP_S,
    drive,
    only,
    waiting,
)
from loadtests.servers import squadron

MODEL = "scaled"
WIDTH = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """`learns_s`: what comes before is for learning, and is not counted."""

    name: str
    arrivals: Sequence[float]
    season_s: float = 0.0
    learns_s: float = 0.0

    @property
    def scaling(self) -> dict[str, Any]:
        return {**SCALING, "season_s": self.season_s}


def trace_of(name: str, *, is_short: bool, high: float) -> Trace:
    if name == "bursty":
        until_s = 40.0 if is_short else 180.0
        return Trace(name=name, arrivals=traces.bursty(3, rate=high / 2, until_s=until_s))
    day_s, days = (60.0, 1) if is_short else (240.0, 3)
    return Trace(
        name=name,
        arrivals=traces.daily(3, low=1, high=high, day_s=day_s, days=days),
        season_s=day_s,
        learns_s=0.0 if is_short else day_s,
    )


def run_live(trace: Trace) -> dict[str, Any]:
    variant = waiting(SERVICE_S * 1e3, autoscaling=trace.scaling)
    path, title = f"/v2/models/{MODEL}/infer", f"replica variant-{MODEL}"
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        squadron(Path(folder), change=only(variants={MODEL: variant})) as running,
    ):
        url = f"http://127.0.0.1:{running.http_port}"
        httpx.post(f"{url}{path}", json=BODY, timeout=60).raise_for_status()
        began_s = time.time()
        found = asyncio.run(drive(running, path, title, trace.arrivals, trace.learns_s))
        told = httpx.get(f"{url}/admin/v1/autoscaling", timeout=60).raise_for_status().json()
    changes = [each for each in reversed(told) if not each["is_latest"] and each["at_s"] >= began_s]
    decisions = [
        {
            "at_s": round(each["at_s"] - began_s, 1),
            "from": each["num_before"],
            "to": each["num_replicas"],
            "is_guard": each["is_guard"],
            "reason": each["reason"],
        }
        for each in changes
    ]
    return {**found, "decisions": decisions}


def run_simulated(trace: Trace) -> dict[str, Any]:
    workload = Workload(
        arrivals=trace.arrivals, service_s=lambda i: SERVICE_S, startup_s=STARTUP_S, slo_s=SLO_S
    )
    replicas = Replicas(workload, num_first=1, counts_from_s=trace.learns_s)
    found = replicas.run(OurPolicy(AutoscalingConfig.model_validate(trace.scaling)))
    return {
        "in_time_share": round(1 - found.miss_share, 4),
        "replica_seconds": round(found.replica_s),
        "most_replicas": found.most_replicas,
    }


def say(found: dict[str, Any]) -> None:
    sim = found["simulated"]
    print(f"{found['trace']}: {found['requests']} requests counted, {found['failed']} failed")
    print(f"  in time: {found['in_time_share']:.2%} (simulated {sim['in_time_share']:.2%})")
    print(
        f"  replica-seconds: {found['replica_seconds']} (simulated {sim['replica_seconds']}), at "
        f"most {found['most_replicas']} replicas"
    )
    print("  replicas that run, from second:")
    for at_s, num in found["replicas_from_s"]:
        print(f"    {at_s:>5} {'#' * min(num, WIDTH)} {num}")
    print("  decisions:")
    for each in found["decisions"]:
        print(f"    {each['at_s']:>7} {each['from']} -> {each['to']}: {each['reason']}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("daily", "bursty", "both"), default="both")
    parser.add_argument("--short", action="store_true", help="less than two minutes of load")
    parser.add_argument("--high", type=float, default=15.0, help="requests/s at noon; default 15")
    parser.add_argument("--json", action="store_true", help="one JSON line a trace")
    asked = parser.parse_args()
    for name in ("daily", "bursty") if asked.what == "both" else (asked.what,):
        trace = trace_of(name, is_short=asked.short, high=asked.high)
        live = run_live(trace)
        live["in_time_share"] = round(1 - live.pop("missed_share"), 4)
        found = {"trace": name, **live, "simulated": run_simulated(trace)}
        if asked.json:
            print(json.dumps(found), flush=True)
        else:
            say(found)


if __name__ == "__main__":
    main()
