"""The measurements of one run, in their order; every result is plain data for the run's JSON."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtests.blocks import Comparison, compare, median
from loadtests.connections import Target
from loadtests.generator import Load, callers, closed_loop, open_loop
from loadtests.grpc_load import grpc_closed_loop, grpc_request
from loadtests.intervals import Ratio
from loadtests.latencies import encoded, quantiles
from loadtests.levels import RawEngine, batches_so_far, door_alone, replica_alone
from loadtests.peers.table import Peer, started
from loadtests.plan import Plan
from loadtests.servers import (
    Running,
    ServerFailed,
    answers_once,
    free_ports,
    process_server,
    squadron_target,
)
from loadtests.works import WORKS, Work
from loadtests.wrk import wrk_rate

Point = dict[str, Any]
BUSY = 64
OVERLOAD_CONNECTIONS = 512
RECOVERY_S = 60.0


def point(load: Load, **tags: Any) -> Point:
    """What the run's JSON keeps of a load; quantiles that the samples cannot carry are absent."""
    return {
        **tags,
        "ok_per_s": load.ok_per_s,
        "good_per_s": load.good_per_s,
        "offered_per_s": load.offered_per_s,
        "num_ok": load.num_ok,
        "statuses": {str(status): count for status, count in load.statuses.items()},
        "quantiles_ms": {f"p{100 * each.q:g}": asdict(each) for each in quantiles(load.histogram)},
        "cpu_us": {label: cost for label, cost in load.cpu_us.items() if cost >= 0.5},
        "rss_bytes": load.rss_bytes,
        "generator_cores": load.generator_cores,
        "send_lag_p99_ms": load.send_lag_p99_ms,
        "histogram": encoded(load.histogram),
    }


class Suite:
    """`failures` holds what could not be measured and why; nothing is left out in silence."""

    def __init__(self, plan: Plan, scratch: Path, seed: int) -> None:
        self.plan = plan
        self.scratch = scratch
        self.seed = seed
        self.failures: dict[str, str] = {}
        self._started_s = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._started_s:6.0f} s  {text}", file=sys.stderr, flush=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step that fails is written down and the rest goes on."""
        self.say(name)
        try:
            yield
        except (TimeoutError, ServerFailed, RuntimeError, OSError, ValueError) as error:
            # Whatever a server does to us, the other figures of the run are still good.
            self.failures[name] = f"{type(error).__name__}: {error}"[:600]
            self.say(f"{name}: FAILED: {self.failures[name]}")

    def closed(self, running: Running, target: Target, connections: int, seconds: float) -> Load:
        watched = running.watched()
        return closed_loop(target, connections=connections, seconds=seconds, watched=watched)

    def warm(self, running: Running, target: Target) -> None:
        if (status := answers_once(target)) != 200:
            raise ServerFailed(f"{running.name} answers {status} to its own work")
        self.closed(running, target, BUSY, self.plan.warm_s)

    def sweep(self, running: Running, target: Target) -> list[Point]:
        """Closed loop at rising connections: throughput against latency, and the capacity."""
        return [
            point(self.closed(running, target, num, self.plan.block_s), connections=num)
            for num in self.plan.sweep
        ]

    def loads(self, running: Running, target: Target, capacity: float) -> list[Point]:
        """Open loop, Poisson arrivals, at shares of capacity."""
        found = []
        for share in self.plan.loads:
            load = open_loop(
                target,
                rate_per_s=max(1.0, capacity * share),
                seconds=self.plan.open_s,
                watched=running.watched(),
                connections=256,
                seed=self.seed,
            )
            found.append(point(load, share=share))
        return found

    def overloads(
        self, running: Running, work: Work, capacity: float, slo_ms: float
    ) -> list[Point]:
        """Goodput against offered load; the deadline travels with the request."""
        target = squadron_target(running, work, timeout_us=int(slo_ms * 1000))
        found = []
        for share in self.plan.overloads:
            rate_per_s = max(1.0, capacity * share)
            load = open_loop(
                target,
                rate_per_s=rate_per_s,
                seconds=self.plan.open_s,
                watched=running.watched(),
                connections=callers(rate_per_s, slo_ms, at_least=OVERLOAD_CONNECTIONS),
                slo_ms=slo_ms,
                seed=self.seed,
            )
            found.append(point(load, share=share, slo_ms=slo_ms))
        return found

    def recovery(self, target: Target, alone_ms: float) -> float:
        """Seconds after an overload until one request takes less than 5 times its usual time.

        Raises: ServerFailed when it never does.
        """
        started_s = time.monotonic()
        while (waited_s := time.monotonic() - started_s) < RECOVERY_S:
            asked_s = time.perf_counter()
            status = answers_once(target)
            if status == 200 and time.perf_counter() - asked_s < 5 * alone_ms / 1000 + 0.005:
                return waited_s
            time.sleep(0.05)
        raise ServerFailed(f"not its usual speed {RECOVERY_S:.0f} s after an overload")

    def against(
        self,
        ours: tuple[Running, Target],
        theirs: tuple[Running, Target],
        connections: int = BUSY,
    ) -> Comparison[Load]:
        """A: ours, B: theirs, closed loop."""
        seconds = self.plan.block_s
        return compare(
            lambda: self.closed(*ours, connections, seconds),
            lambda: self.closed(*theirs, connections, seconds),
            num_units=self.plan.num_units,
            seed=self.seed,
        )

    def control(self, running: Running, target: Target) -> Point:
        """The A/A control: Squadron against itself."""
        return compared(self.against((running, target), (running, target)))

    def batches(self, running: Running, target: Target, work: Work) -> Point:
        before = batches_so_far(running, work.name)
        self.closed(running, target, BUSY, self.plan.block_s * 2)
        seen = batches_so_far(running, work.name).since(before)
        return {**asdict(seen), "mean_rows": seen.mean_rows}

    def levels(self, running: Running, target: Target, work: Work, config: Path) -> Point:
        """L3 / L0 in turns at the batch sizes seen, and L1 and L2 beside them."""
        seen = self.batches(running, target, work)
        engine = RawEngine(work)
        seconds = self.plan.block_s
        turns: Comparison[float] = compare(
            lambda: self.closed(running, target, BUSY, seconds).ok_per_s,
            lambda: engine.rows_per_s(seen["mean_rows"], seconds=seconds),
            num_units=self.plan.num_units,
            seed=self.seed,
        )
        found: Point = {
            "batches": seen,
            "L3_per_s": median(turns.values("A", float)),
            "L0_per_s": median(turns.values("B", float)),
            "L3_over_L0": asdict(turns.ratio(float)),
        }
        # Keys as JSON has them, so that a report from run.json is the same.
        curve_ms = engine.curve_ms(seconds=seconds * 2)
        found["L0_curve_ms"] = {str(size): took_ms for size, took_ms in curve_ms.items()}
        rows = max(1, round(seen["mean_rows"]))
        with self.step(f"{work.name}: L1, a replica alone"):
            found["L1"] = replica_alone(config, work, rows=rows, seconds=seconds * 2)
        with (
            self.step(f"{work.name}: L2, a door without Ray"),
            door_alone(config, work, self.scratch / "door") as door,
        ):
            beside = squadron_target(door, work)
            self.warm(door, beside)
            found["L2_c1"] = point(self.closed(door, beside, 1, seconds), connections=1)
            found["L3_against_L2"] = compared(self.against((running, target), (door, beside)))
        return found

    def peer(self, peer: Peer, work: Work, squadron: Running) -> Point:
        """A peer beside Squadron. Raises: ServerFailed when it cannot be installed or started."""
        ours = squadron_target(squadron, work)
        with started(peer, work, self.scratch / peer.name) as running:
            theirs = peer.target(work, running.http_port)
            self.warm(running, theirs)
            alone = self.closed(running, theirs, 1, self.plan.block_s)
            turns = self.against((squadron, ours), (running, theirs))
            found = compared(turns)
            found |= {"version": running.version, "c1": point(alone, connections=1)}
            if work.name == "identity":
                found["wrk_per_s"] = wrk_rate(theirs, BUSY, self.plan.block_s, self.scratch)
            return found

    def encodings(self, running: Running, work: Work) -> Point:
        """A: binary tensors, B: JSON, both against Squadron."""
        binary = squadron_target(running, work, "binary")
        text = squadron_target(running, work, "json")
        return compared(self.against((running, binary), (running, text)))

    def apart(self, running: Running) -> Point:
        """A: identity in a process of its own, B: in the door's, of one Squadron."""
        work = WORKS["identity"]
        other = squadron_target(running, work, model="identity-apart")
        self.warm(running, other)
        return compared(self.against((running, other), (running, squadron_target(running, work))))

    def grpc(self, running: Running) -> Point:
        """A: our gRPC, B: a bare grpc.aio server with the same model, 64 calls on one channel."""
        request = grpc_request(WORKS["identity"])
        ports = free_ports(3)
        bare = [sys.executable, "-m", "loadtests.grpc_load", "--serve", "--port", str(ports[0])]
        folder = self.scratch / "grpc"
        with process_server(
            "bare_grpc", bare, {}, folder, version="", ports=ports, probe=ports[0]
        ) as other:
            return compared(
                compare(
                    self._grpc_block(running, running.grpc_port, request),
                    self._grpc_block(other, ports[0], request),
                    num_units=self.plan.num_units,
                    seed=self.seed,
                )
            )

    def _grpc_block(self, running: Running, port: int, request: bytes) -> Callable[[], Load]:
        # grpc.aio polls on asyncio's own loop; uvloop is not supported by it.
        return lambda: asyncio.run(
            grpc_closed_loop(
                port,
                request,
                calls=BUSY,
                seconds=self.plan.block_s,
                watched=running.watched(),
            )
        )

    def soak(self, running: Running) -> Point:
        """Resident memory of each process after the settling requests and at the end."""
        target = squadron_target(running, WORKS["identity"])
        sent, settled, last = 0, None, None
        while sent < self.plan.soak_requests:
            last = self.closed(running, target, BUSY, 2.0)
            sent += last.num_ok
            if settled is None and sent >= self.plan.soak_settled:
                settled = last
            if last.num_ok == 0:
                raise ServerFailed("no answers during the soak")
        assert settled is not None
        assert last is not None
        growth = {
            label: size / settled.rss_bytes[label]
            for label, size in last.rss_bytes.items()
            if label != "generator" and label in settled.rss_bytes
        }
        return {
            "requests": sent,
            "settled_after": self.plan.soak_settled,
            "growth": growth,
            "largest_growth": max(growth.values()),
            "rss_bytes": last.rss_bytes,
        }


def compared(turns: Comparison[Load]) -> Point:
    """Medians of both sides and their ratios, in requests and in server CPU."""
    found: Point = {
        "a_per_s": median(turns.values("A", lambda load: load.ok_per_s)),
        "b_per_s": median(turns.values("B", lambda load: load.ok_per_s)),
        "rate_ratio": asdict(_ratio(turns, lambda load: load.ok_per_s)),
        "num_dropped": turns.num_dropped(),
        "canary_ms": [block.canary_ms for block in turns.blocks],
        "load_1m": [block.load_1m for block in turns.blocks],
        "blocks": [point(block.result, label=block.label) for block in turns.blocks],
    }
    if all(block.result.cpu_us.get("server") for block in turns.blocks):
        for side, name in (("A", "a_cpu_us"), ("B", "b_cpu_us")):
            found[name] = median(turns.values(side, _server_cpu))  # type: ignore[arg-type]
        found["cpu_ratio"] = asdict(_ratio(turns, _server_cpu))
    return found


def _ratio(turns: Comparison[Load], value: Callable[[Load], float]) -> Ratio:
    return turns.ratio(value)


def _server_cpu(load: Load) -> float:
    return load.cpu_us["server"]
