"""Parts of Squadron in one process without Ray, to see what each of them costs.

    python -m loadtests.without_ray replica --config FILE --work identity --seconds 2
    python -m loadtests.without_ray door --config FILE --port 18100

`replica` (level L1) calls a model replica directly, envelope in and envelope out, and prints one
JSON object. `door` (level L2) is an HTTP door with its replicas in the same process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
import yaml

import actors.model_replica
from actors.app import build
from actors.delivery.transport import MemoryTransport, Transport
from actors.extensions.offered import make_offered
from actors.front_door import FrontDoor
from actors.garbage import collect_rarely
from actors.gateway import GatewaySetup
from actors.listeners.http import HttpListener
from actors.listeners.http1.connection import HttpConnection
from actors.listeners.http_routes import HttpRoutes
from actors.logs.notes import follows_of, noted
from actors.logs.set_up import set_up_logs
from actors.model_replica import ModelReplica, ReplicaSetup
from actors.tracing.opened import door_spans, tracer_of
from cluster.observability.metrics import make_metrics
from cluster.protocols.envelope import Call, decode_replies, encode_calls
from cluster.routing.table import VariantRoute
from cluster.tensors import Tensor, datatype_of
from loadtests.works import WORKS, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What `actors.app.build` would deploy, by variant."""

    gateway: GatewaySetup
    replicas: dict[str, ReplicaSetup]


def parts_of(config: Path) -> _Parts:
    """From the same function that Serve calls, so that nothing is configured twice."""
    args = yaml.safe_load(config.read_text())["applications"][0]["args"]
    gateway = _bound(build(args))
    setup, *models = gateway.init_args
    replicas = {model.variant: model for model in setup.colocated}
    for model in models:
        bound = _bound(model)
        replicas[bound.init_args[0].variant] = bound.init_args[0]
    return _Parts(gateway=setup, replicas=replicas)


def _bound(application: Any) -> Any:
    # Serve keeps what was bound under a private name and offers no public one.
    return application._bound_deployment


def _metrics_into(folder: Path) -> None:
    """Replicas write metrics into a folder of their Ray session; here there is none."""
    actors.model_replica.metrics_folder = lambda: folder


async def measure_replica(
    parts: _Parts, work: Work, *, rows: int, seconds: float
) -> dict[str, Any]:
    """Closed loop: two envelopes of `rows` calls under way, as a door keeps them; then one of one.

    Rates are rows a second; `p50_ms` is that of a single call alone.
    """
    replica = ModelReplica(parts.replicas[work.name])
    inputs = tuple(
        Tensor(name=name, datatype=datatype_of(array), array=array)
        for name, array in work.inputs().items()
    )

    def envelope(num_calls: int) -> bytes:
        return encode_calls(
            Call(call_id=number, rows=1, left_s=60.0, inputs=inputs) for number in range(num_calls)
        )

    async def caller(message: bytes, until_s: float) -> list[float]:
        latencies = []
        while (started_s := time.perf_counter()) < until_s:
            decode_replies(await replica.infer(message))
            latencies.append(time.perf_counter() - started_s)
        return latencies

    await caller(envelope(rows), time.perf_counter() + seconds / 4)
    cpu_s, started_s = time.process_time(), time.perf_counter()
    both = await asyncio.gather(*(caller(envelope(rows), started_s + seconds) for _ in range(2)))
    took_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    num_rows = rows * sum(len(each) for each in both)
    alone = sorted(await caller(envelope(1), time.perf_counter() + seconds / 2))
    return {
        "rows_per_s": num_rows / took_s,
        "cpu_us_per_row": cpu_s * 1e6 / num_rows,
        "p50_ms": alone[len(alone) // 2] * 1000,
        "rows": rows,
    }


async def serve_door(parts: _Parts, folder: Path, port: int) -> None:
    """Until the process is told to end."""
    server = parts.gateway.server
    metrics = make_metrics(folder)
    set_up_logs(server.logging, role="door")
    tracer = tracer_of(server.tracing, role="door")
    spans = door_spans(tracer, server.tracing)

    def transport(route: VariantRoute) -> Transport:
        plain = MemoryTransport(replicas[route.name])
        return plain if spans is None else spans.transport(plain)

    door = FrontDoor(
        server,
        parts.gateway.table,
        make_transport=transport,
        metrics=metrics,
    )
    door.follows = follows_of(spans, server.logging)
    replicas = {
        name: ModelReplica(setup, metrics=metrics, flush_later=door.flush_with, tracer=tracer)
        for name, setup in parts.replicas.items()
    }
    plain_routes = HttpRoutes(door, make_offered(door, folder), app="without-ray")
    routes = noted(plain_routes, server.logging)
    listener = HttpListener(routes, server.limits)
    listening = await asyncio.get_running_loop().create_server(
        lambda: HttpConnection(routes, server.limits, listener), "127.0.0.1", port, backlog=2048
    )
    collect_rarely()
    told_to_end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told_to_end.set)
    await told_to_end.wait()
    listening.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=("replica", "door"))
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--work", default="identity", choices=tuple(WORKS))
    parser.add_argument("--rows", type=int, default=0, help="calls an envelope (default: a batch)")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--port", type=int, default=0)
    asked = parser.parse_args()
    parts = parts_of(asked.config)
    with tempfile.TemporaryDirectory(prefix="squadron-bench-") as scratch:
        folder = Path(scratch)
        _metrics_into(folder)
        if asked.part == "door":
            uvloop.run(serve_door(parts, folder, asked.port))
        else:
            work = WORKS[asked.work]
            rows = asked.rows or work.max_batch_size
            found = uvloop.run(measure_replica(parts, work, rows=rows, seconds=asked.seconds))
            print(json.dumps(found), flush=True)
    # The replicas' threads and runtimes have nothing left to do, and would be waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
