"""Ensembles and autoscaling in a running Squadron, measured.

    python -m loadtests.live_scaling ensemble      a parallel ensemble beside its slowest member
    python -m loadtests.live_scaling autoscaling   a short step of load: misses and replica-seconds

Members are engines that wait: what is measured is Squadron, on any number of cores. `autoscaling`
also prints what the simulator says of the same arrivals, with our policy and with Ray Serve's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.simulation.autoscaling import traces
from cluster.simulation.autoscaling.replicas import (
    OurPolicy,
    RaysPolicy,
    Replicas,
    Result,
    Workload,
)
from cluster.simulation.autoscaling.stock import StockConfig
from loadtests.servers import Running, squadron

CARD = {
    "name": "waiting",
    "format": "fake",
    "signature": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    },
}
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
DELAYS_MS = {"a": 20.0, "b": 35.0, "c": 50.0}
SERVICE_S, SLO_S, STARTUP_S = 0.1, 0.5, 6.0
SCALING: dict[str, Any] = {
    "max_replicas": 6,
    "slo_ms": SLO_S * 1e3,
    "startup_s": STARTUP_S,
    "downscale_delay_s": 20,
}


def only(**args: Any) -> Callable[[dict[str, Any]], None]:
    """The configuration's doors, with nothing but these models."""

    def change(found: dict[str, Any]) -> None:
        for section in ("variants", "ensembles", "experiments"):
            found[section] = args.get(section, {})

    return change


def waiting(delay_ms: float, **more: Any) -> dict[str, Any]:
    batching = {"mode": "off", "max_batch_size": 1}
    return {"card": CARD, "options": {"delay_ms": delay_ms}, "batching": batching, **more}


async def measure_ensemble(running: Running, blocks: int) -> dict[str, object]:
    """Blocks of the slowest member and of the ensemble in turn, one request at a time."""
    found: dict[str, list[float]] = {"c": [], "all": [], "hop": []}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.http_port}") as client:
        for block in range(blocks + 1):
            for model in found:
                for _ in range(20):
                    began_s = time.perf_counter()
                    answer = await client.post(f"/v2/models/{model}/infer", json=BODY)
                    answer.raise_for_status()
                    if block:
                        found[model].append((time.perf_counter() - began_s) * 1e3)
    p50 = {model: median(times) for model, times in found.items()}
    over = (p50["all"] - p50["hop"]) / p50["c"] - 1
    return {
        "slowest_member_p50_ms": round(p50["c"], 2),
        "ensemble_p50_ms": round(p50["all"], 2),
        "hop_p50_ms": round(p50["hop"], 2),
        "ensemble_less_a_hop_over_slowest_member": round(over, 4),
        "requests_each": len(found["all"]),
    }


async def drive(running: Running, arrivals: Sequence[float]) -> dict[str, object]:
    """Open loop: latency counts from the intended time."""
    late = failed = 0
    started_s = time.perf_counter()
    tasks = set()
    seconds: list[tuple[float, int]] = []

    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{running.http_port}",
        timeout=60,
        limits=httpx.Limits(max_connections=512),
    ) as client:

        async def one(at_s: float) -> None:
            nonlocal late, failed
            answer = await client.post("/v2/models/scaled/infer", json=BODY)
            failed += answer.status_code != 200
            late += time.perf_counter() - started_s - at_s > SLO_S

        async def count_replicas() -> None:
            while True:
                found = (await client.get("/admin/v1/autoscaling")).json()
                if found:
                    seconds.append((time.perf_counter() - started_s, found[0]["num_replicas"]))
                await asyncio.sleep(1)

        counting = asyncio.create_task(count_replicas())
        for at_s in arrivals:
            await asyncio.sleep(max(0.0, started_s + at_s - time.perf_counter()))
            tasks.add(asyncio.create_task(one(at_s)))
        await asyncio.gather(*tasks)
        counting.cancel()
        decisions = (await client.get("/admin/v1/autoscaling")).json()
    replica_s = sum(num * (after - at_s) for (at_s, num), (after, _) in pairwise(seconds))
    return {
        "what": "live",
        "requests": len(arrivals),
        "failed": failed,
        "missed_share": round(late / len(arrivals), 4),
        "replica_seconds": round(replica_s),
        "most_replicas": max(num for _, num in seconds),
        "reasons": [each["reason"] for each in reversed(decisions) if each["is_change"]],
    }


def simulated(what: str, arrivals: Sequence[float]) -> dict[str, object]:
    workload = Workload(
        arrivals=arrivals, service_s=lambda i: SERVICE_S, startup_s=STARTUP_S, slo_s=SLO_S
    )
    replicas = Replicas(workload, num_first=1, counts_from_s=0.0)
    if what == "ours":
        found: Result = replicas.run(OurPolicy(AutoscalingConfig.model_validate(SCALING)))
    else:
        found = replicas.run(RaysPolicy(StockConfig(max_replicas=SCALING["max_replicas"])))
    return {
        "what": f"simulated, {what}",
        "requests": found.num_requests,
        "missed_share": round(found.miss_share, 4),
        "replica_seconds": round(found.replica_s),
        "most_replicas": found.most_replicas,
    }


def run_ensemble(folder: Path) -> None:
    steps: list[dict[str, Any]] = [{"model": name, "outputs": {"y": name}} for name in DELAYS_MS]
    steps.append({"combine": "mean", "inputs": list(DELAYS_MS), "output": "y"})
    change = only(
        variants={
            **{name: waiting(delay_ms) for name, delay_ms in DELAYS_MS.items()},
            "hop": waiting(0.0),
        },
        ensembles={"all": {"inputs": ["x"], "outputs": ["y"], "steps": steps}},
    )
    with squadron(folder, change=change) as running:
        print(json.dumps(asyncio.run(measure_ensemble(running, blocks=10))))


def run_autoscaling(folder: Path, seconds: float) -> None:
    arrivals = traces.step(3, low=3, high=25, at_s=seconds / 4, until_s=seconds)
    for what in ("rays", "ours"):
        print(json.dumps(simulated(what, arrivals)))
    change = only(variants={"scaled": waiting(SERVICE_S * 1e3, autoscaling=SCALING)})
    with squadron(folder, change=change) as running:
        print(json.dumps(asyncio.run(drive(running, arrivals)), indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("ensemble", "autoscaling"))
    parser.add_argument("--seconds", type=float, default=180.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if asked.what == "ensemble":
            run_ensemble(Path(name))
        else:
            run_autoscaling(Path(name), asked.seconds)


if __name__ == "__main__":
    main()
