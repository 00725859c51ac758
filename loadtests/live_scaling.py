"""Ensembles and autoscaling in a running Squadron, measured.

    python -m loadtests.live_scaling ensemble      a parallel ensemble beside its slowest member
    python -m loadtests.live_scaling quorum        a member killed under load, 2 of 3 are enough
    python -m loadtests.live_scaling density       models loaded at run time, more than fit
    python -m loadtests.live_scaling autoscaling   a short step of load: misses and replica-seconds

Members are engines that wait: what is measured is Squadron, on any number of cores. `autoscaling`
runs Ray Serve's stock policy (a plain Ray Serve application) and ours on the same arrivals, and
prints what the simulator says of both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version as ray_version
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
from loadtests.connections import Target
from loadtests.generator import http_request
from loadtests.measured_models import write_store
from loadtests.servers import Running, free_ports, process_server, squadron

Found = dict[str, object]

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


async def drive(
    running: Running,
    path: str,
    title: str,
    arrivals: Sequence[float],
    counts_from_s: float = 0.0,
) -> Found:
    """Open loop: latency counts from the intended time; what failed is late. `title`: how a
    replica's process is labelled; one is paid for as long as it is there. What comes before
    `counts_from_s` is sent and not counted."""
    counted = late = failed = most = 0
    replica_s = 0.0
    changes: list[tuple[int, int]] = []
    started_s = time.perf_counter()
    tasks = set()

    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{running.http_port}",
        timeout=60,
        limits=httpx.Limits(max_connections=512),
    ) as client:

        async def one(at_s: float) -> None:
            nonlocal counted, late, failed
            try:
                is_answered = (await client.post(path, json=BODY)).status_code == 200
            except httpx.HTTPError:
                is_answered = False
            if at_s < counts_from_s:
                return
            counted += 1
            failed += not is_answered
            late += not is_answered or time.perf_counter() - started_s - at_s > SLO_S

        async def count_replicas() -> None:
            nonlocal most, replica_s
            before_s = time.perf_counter()
            while True:
                watched = await asyncio.to_thread(running.watched)
                num, now_s = len(watched.pids.get(title, ())), time.perf_counter()
                most = max(most, num)
                if not changes or changes[-1][1] != num:
                    changes.append((round(now_s - started_s), num))
                if now_s - started_s >= counts_from_s:
                    replica_s += num * (now_s - before_s)
                before_s = now_s
                await asyncio.sleep(1)

        counting = asyncio.create_task(count_replicas())
        for at_s in arrivals:
            await asyncio.sleep(max(0.0, started_s + at_s - time.perf_counter()))
            tasks.add(asyncio.create_task(one(at_s)))
        await asyncio.gather(*tasks)
        counting.cancel()
    return {
        "requests": counted,
        "failed": failed,
        "missed_share": round(late / max(1, counted), 4),
        "replica_seconds": round(replica_s),
        "most_replicas": most,
        "replicas_from_s": changes,
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
        say(**asyncio.run(measure_ensemble(running, blocks=10)))


def run_autoscaling(folder: Path, seconds: float, high: float, policies: Sequence[str]) -> None:
    arrivals = traces.step(3, low=3, high=high, at_s=seconds / 5, until_s=seconds)
    for what in policies:
        say(**simulated(what, arrivals))
        if what == "rays":
            with plain_ray_serve(folder) as running:
                found = asyncio.run(drive(running, "/scaled", "replica Model", arrivals))
                say(what="live, Ray Serve's stock policy", **found)
            continue
        change = only(variants={"scaled": waiting(SERVICE_S * 1e3, autoscaling=SCALING)})
        with squadron(folder, change=change) as running:
            path, title = "/v2/models/scaled/infer", "replica variant-scaled"
            found = asyncio.run(drive(running, path, title, arrivals))
            told = httpx.get(f"http://127.0.0.1:{running.http_port}/admin/v1/autoscaling").json()
            reasons = [each["reason"] for each in reversed(told) if not each["is_latest"]]
            say(what="live, ours", **found, reasons=reasons)


def plain_ray_serve(folder: Path) -> AbstractContextManager[Running]:
    (port,) = free_ports(1)
    program = Path(__file__).parent / "peers" / "ray_serve_scaling.py"
    words = (port, SERVICE_S, SCALING["max_replicas"])
    request = http_request("/scaled", b"{}", {"content-type": "application/json"})
    return process_server(
        "ray serve",
        [sys.executable, str(program), *map(str, words)],
        {},
        folder,
        version=ray_version("ray"),
        ports=(port, 0, 0),
        probe=Target(host="127.0.0.1", port=port, request=request),
    )


def run_quorum(folder: Path, num_requests: int) -> None:
    """A member's process is killed under load, whole Serve around it: who fails, and for how
    long answers do without it."""
    steps: list[dict[str, Any]] = [{"model": name, "outputs": {"y": name}} for name in DELAYS_MS]
    inputs = list(DELAYS_MS)
    whole = [*steps, {"combine": "mean", "inputs": inputs, "output": "y"}]
    with_quorum = {"combine": "mean", "inputs": inputs, "output": "y", "quorum": 2, "wait_ms": 200}
    shape: dict[str, Any] = {"inputs": ["x"], "outputs": ["y"]}
    change = only(
        variants={name: waiting(delay_ms) for name, delay_ms in DELAYS_MS.items()},
        ensembles={
            "quorum": {**shape, "steps": [*steps, with_quorum]},
            "whole": {**shape, "steps": whole},
        },
    )
    with squadron(folder, change=change) as running:
        for name in ("quorum", "whole"):
            say(what=name, **asyncio.run(kill_a_member(running, name, num_requests)))


async def kill_a_member(running: Running, ensemble: str, num_requests: int) -> Found:
    found: Counter[str] = Counter()
    took_ms: list[float] = []
    numbers = iter(range(num_requests))
    while not running.watched().pids.get("replica variant-c"):  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0.2)

    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{running.http_port}", timeout=60
    ) as client:

        async def caller() -> None:
            for number in numbers:
                if number == num_requests // 3:
                    (pid,) = running.watched().pids["replica variant-c"]
                    os.kill(pid, signal.SIGKILL)
                began_s = time.perf_counter()
                answer = await client.post(f"/v2/models/{ensemble}/infer", json=BODY)
                found[str(answer.status_code)] += 1
                took_ms.append((time.perf_counter() - began_s) * 1e3)

        await asyncio.gather(*(caller() for _ in range(10)))
        events = (await client.get(f"http://127.0.0.1:{running.metrics_port}/metrics")).text
    lines = [line for line in events.splitlines() if "squadron_ensemble_events" in line]
    return {
        "statuses": dict(found),
        "longest_ms": round(max(took_ms)),
        "p50_ms": round(median(took_ms), 1),
        "events": [line for line in lines if f'model="{ensemble}"' in line],
    }


def run_density(folder: Path, max_memory_bytes: int) -> None:
    """Three models are loaded at run time where two fit: each is asked in turn, and the one that
    was asked least recently makes room."""
    write_store(folder / "store")

    def change(args: dict[str, Any]) -> None:
        only(variants={"control": {"source": "control", "replicas": 1}})(args)
        args["store"]["path"] = str(folder / "store")
        args["server"]["repository_control"] = "explicit"
        loaded = {"min_replicas": 0, "max_replicas": 2, "slo_ms": 500, "startup_s": STARTUP_S}
        loaded |= {"downscale_delay_s": 5, "downscale_to_zero_delay_s": 3600}
        args["autoscaling"] = {"loaded": loaded, "max_memory_bytes": max_memory_bytes}

    names = ("equal", "slower", "worse")
    body = {"inputs": [{"name": "x", "datatype": "INT32", "shape": [1, 1], "data": [1]}]}
    with (
        squadron(folder, change=change) as running,
        httpx.Client(base_url=f"http://127.0.0.1:{running.http_port}", timeout=90) as client,
    ):
        for name in names:
            client.post(f"/v2/repository/models/{name}/load", json={}).raise_for_status()
        for name in (*names, *names):
            began_s = time.perf_counter()
            status = client.post(f"/v2/models/{name}/infer", json=body).status_code
            took_s = time.perf_counter() - began_s
            # Longer than the look-back: what was asked before is at rest when the next is.
            time.sleep(15)
            pids = running.watched().pids
            told = client.get("/admin/v1/autoscaling").json()
            say(
                what=name,
                status=status,
                seconds=round(took_s, 2),
                processes={n: sum(len(p) for t, p in pids.items() if n in t) for n in names},
                targets={e["variant"]: e["num_replicas"] for e in told[: len(names)]},
                evicted=[e["variant"] for e in told if "evicted" in e["reason"]],
            )


def say(**found: object) -> None:
    print(json.dumps(found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("ensemble", "autoscaling", "quorum", "density"))
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--high", type=float, default=25.0, help="requests a second of the step")
    parser.add_argument("--policies", nargs="+", choices=("rays", "ours"), default=["rays", "ours"])
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--memory-mib", type=int, default=450)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        match asked.what:
            case "ensemble":
                run_ensemble(Path(name))
            case "density":
                run_density(Path(name), asked.memory_mib * 2**20)
            case "quorum":
                run_quorum(Path(name), asked.requests)
            case _:
                run_autoscaling(Path(name), asked.seconds, asked.high, asked.policies)


if __name__ == "__main__":
    main()
