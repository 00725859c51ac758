"""The simulator beside a real Squadron, call by call (goal: within 2 points of SLO attainment).

    python -m loadtests.placement.real                 # a JSON line a row, some six minutes

Two models on three replicas of the fake engine, which sleeps as long as a device would compute, get
bursty calls over HTTP in an open loop; the same calls then go through the production scheduler in
virtual time. The simulator is told two measured numbers: what a replica takes for a request when it
is never idle, and what a lone call takes beyond that. `refused` are answered at once; they count as
missed, as late ones do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from numpy.random import default_rng

from cluster.placement.search.candidate import Candidate
from cluster.placement.search.facts import Demand, LayerFacts, ModelFacts
from cluster.placement.search.groups import cuts_of, layouts
from cluster.simulation.cluster.fast import FastSimulator
from cluster.simulation.cluster.production import ProductionSimulator
from cluster.simulation.cluster.trace import Trace, draw_trace
from cluster.topology import Device, Link, Node, Topology
from loadtests.servers import squadron

SERVICE_MS = 200.0
HOSTED = ((0,), (0,), (1,))
"""Model of each replica."""
RATES = (8.0, 4.5)
CVS = (2.0, 1.0)
CARD = {
    "format": "fake",
    "signature": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Attainments of the same calls. `fast` is the search's simulator. `answered`: the share that
    the server answered, in time by its own clock; of those `late` came too late by the caller's, by
    `late_by_ms` (median)."""

    slo_scale: float
    calls: int
    real: float
    simulated: float
    difference_points: float
    fast: float
    answered: float
    refused: int
    late: int
    late_by_ms: float
    service_ms: float
    outside_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    took_s: float


def only_ours(args: dict[str, Any]) -> None:
    """Two variants in place of the benchmark's."""
    args["variants"] = {
        _name(model): {
            "engine": "fake",
            "card": {"name": _name(model), **CARD},
            "replicas": sum(hosted == (model,) for hosted in HOSTED),
            "colocate": "never",
            "batching": {"mode": "off", "max_queue_size": 1000},
            "options": {"delay_ms": SERVICE_MS},
        }
        for model in range(len(RATES))
    }
    for section in ("experiments", "ensembles"):
        args.pop(section, None)


class Client:
    """Calls of one server. `slo_s` goes along as the request's timeout."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def call(self, model: int, slo_s: float, intended_s: float) -> Answer:
        body = {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}],
            "parameters": {"timeout": int(slo_s * 1e6)},
        }
        found = await self._http.post(f"/v2/models/{_name(model)}/infer", json=body)
        return Answer(status=found.status_code, took_s=time.perf_counter() - intended_s)

    async def alone_s(self) -> float:
        """The median of lone calls."""
        took: list[float] = []
        for _ in range(15):
            answer = await self.call(0, 30.0, time.perf_counter())
            took.append(answer.took_s)
        return median(took)

    async def service_s(self, seconds: float) -> float:
        """Seconds of one replica for one request, while none is ever idle."""
        began_s = time.perf_counter()
        done = 0

        async def worker() -> None:
            nonlocal done
            while time.perf_counter() - began_s < seconds:
                await self.call(1, 30.0, time.perf_counter())
                done += 1

        await asyncio.gather(*(worker() for _ in range(3)))
        return (time.perf_counter() - began_s) / done

    async def replay(self, trace: Trace) -> list[Answer]:
        """Every call at its time, whatever became of those before it."""
        began_s = time.perf_counter() + 0.5

        async def at(now_s: float, model: int, slo_s: float) -> Answer:
            await asyncio.sleep(began_s + now_s - time.perf_counter())
            return await self.call(model, slo_s, began_s + now_s)

        return list(await asyncio.gather(*(at(*call) for call in trace.calls)))


def demands(slo_s: float, service_s: float) -> tuple[Demand, ...]:
    facts = ModelFacts(
        kind="fake",
        layers=(LayerFacts(flops=1.0, weight_bytes=1),),
        measured_s=(("cpu", service_s),),
    )
    return tuple(
        Demand(name=_name(m), facts=facts, rate_per_s=rate, burstiness_cv=cv, slo_s=slo_s)
        for m, (rate, cv) in enumerate(zip(RATES, CVS, strict=True))
    )


def simulated(trace: Trace, wanted: tuple[Demand, ...], outside_s: float) -> tuple[float, float]:
    """(production scheduler, simulator of the search)."""
    device = Device(
        name="cpu", kind="cpu", memory_bytes=2**30, flops_per_s=1.0, memory_bytes_per_s=1e30
    )
    link = Link(bytes_per_s=1e9)
    nodes = tuple(Node(name=f"r{n}", devices=(device,), link=link) for n in range(len(HOSTED)))
    topology = Topology(nodes=nodes, network=link)
    layout = layouts(topology, topology.sites())[0]
    cuts = cuts_of(layout, wanted)
    candidate = Candidate(groups=layout.groups, hosted=HOSTED, times=cuts.times())
    production = ProductionSimulator(trace, lambda _: cuts, request_s=outside_s)
    fast = FastSimulator(trace, request_s=outside_s)
    return production(candidate).attainment, fast(candidate).attainment


async def measure(port: int, scales: Sequence[float], seconds: float, seed: int) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=60.0
    ) as http:
        client = Client(http)
        for index, scale in enumerate(scales):
            # Taken again for each row: other work on the machine comes and goes.
            service_s = await client.service_s(8.0)
            outside_s = max(0.0, await client.alone_s() - service_s)
            wanted = demands(scale * SERVICE_MS / 1e3, service_s)
            trace = draw_trace(wanted, seconds=seconds, random=default_rng(seed + index))
            answers = await client.replay(trace)
            print(
                json.dumps(asdict(compared(scale, trace, wanted, answers, outside_s))), flush=True
            )


def compared(
    scale: float,
    trace: Trace,
    wanted: tuple[Demand, ...],
    answers: Sequence[Answer],
    outside_s: float,
) -> Row:
    slo_s = wanted[0].slo_s
    num_ok = sum(answer.status == 200 for answer in answers)
    late_s = [a.took_s - slo_s for a in answers if a.status == 200 and a.took_s > slo_s]
    num_good = num_ok - len(late_s)
    production, fast = simulated(trace, wanted, outside_s)
    real = num_good / len(answers)
    return Row(
        slo_scale=scale,
        calls=len(answers),
        real=real,
        simulated=production,
        difference_points=100 * (production - real),
        fast=fast,
        answered=num_ok / len(answers),
        refused=len(answers) - num_ok,
        late=len(late_s),
        late_by_ms=1e3 * median(late_s) if late_s else 0.0,
        service_ms=1e3 * dict(wanted[0].facts.measured_s)["cpu"],
        outside_ms=1e3 * outside_s,
    )


def _name(model: int) -> str:
    return f"model-{model}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scales", type=float, nargs="*", default=[2.0, 3.0, 5.0, 10.0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        squadron(Path(scratch), change=only_ours) as server,
    ):
        asyncio.run(measure(server.http_port, asked.scales, asked.seconds, asked.seed))


if __name__ == "__main__":
    main()
