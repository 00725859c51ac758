"""What traces and logs cost a request: CPU of a door without Ray, settings in turns.

    python -m loadtests.tracing_cost --rounds 20
    python -m loadtests.tracing_cost --before ../older-checkout      # and another version, all off

The smallest request there is (16 floats, JSON, 64 connections), so that the share is the largest.
Every door runs all the time; in each round each is loaded in turn. Told are the median over the
rounds and that of the ratios to `off` in the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from loadtests.generator import closed_loop
from loadtests.servers import ROOT, Running, free_ports, infer_path, process_server
from loadtests.works import WORKS

CONNECTIONS = 64
EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"


class Sink:
    """A collector that counts, in this process: its CPU is not the doors'."""

    def __init__(self) -> None:
        self.num_spans = 0
        self._server = grpc.server(ThreadPoolExecutor(1))
        handler = grpc.unary_unary_rpc_method_handler(self._take)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(EXPORT, {"Export": handler}),)
        )
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.endpoint = f"http://127.0.0.1:{port}"
        self._server.start()

    def _take(self, data: bytes, context: Any) -> bytes:
        request = ExportTraceServiceRequest.FromString(data)
        self.num_spans += sum(
            len(scope.spans) for each in request.resource_spans for scope in each.scope_spans
        )
        return b""


def settings_of(endpoint: str) -> dict[str, dict[str, Any]]:
    traced = {"endpoint": endpoint, "max_queued_spans": 65536}
    return {
        "off": {},
        "sampled 0.01": {"tracing": {**traced, "sample_ratio": 0.01}},
        "sampled 1.0": {"tracing": {**traced, "sample_ratio": 1.0}},
        "access log, text": {"logging": {"access_log": True}},
        "access log, JSON": {"logging": {"access_log": True, "format": "json"}},
    }


@contextlib.contextmanager
def door(name: str, server: dict[str, Any], scratch: Path, root: Path) -> Iterator[Running]:
    content = yaml.safe_load((ROOT / "serve_configs/bench.yaml").read_text())
    args = content["applications"][0]["args"]
    args["server"].update(server)
    args["store"] = {"path": str(ROOT / "models")}
    args["variants"] = {"identity": args["variants"]["identity"]}
    folder = scratch / name.replace(" ", "-")
    folder.mkdir()
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    ports = free_ports(3)
    command = [sys.executable, "-m", "loadtests.without_ray", "door", "--config", str(file)]
    probe = Running(name="", version="", pid=0, http_port=ports[0])
    target = probe.target(infer_path("identity"), WORKS["identity"].v2())
    # In that folder its own modules are the first that Python finds.
    in_root = ["env", "-C", str(root), *command, "--port", str(ports[0])]
    with process_server(name, in_root, {}, folder, version="", ports=ports, probe=target) as found:
        yield found


def cpu_s(pid: int) -> float:
    """Of all its threads, to a nanosecond; `psutil` knows hundredths of a second."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def measure(running: Running, seconds: float) -> float:
    """CPU of the door a request. **Units:** microseconds."""
    target = running.target(infer_path("identity"), WORKS["identity"].v2())
    watched = running.watched()
    before_s = cpu_s(running.pid)
    load = closed_loop(target, connections=CONNECTIONS, seconds=seconds, watched=watched)
    assert load.num_ok == sum(load.statuses.values()), load.statuses
    return (cpu_s(running.pid) - before_s) * 1e6 / load.num_ok


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each door's turn")
    parser.add_argument("--before", type=Path, help="another checkout, measured beside `off`")
    parser.add_argument("--only", nargs="*", default=[], help="of the settings, beside `off`")
    asked = parser.parse_args()
    sink = Sink()
    chosen = settings_of(sink.endpoint)
    if asked.only:
        chosen = {name: chosen[name] for name in ("off", *asked.only)}
    took: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="squadron-cost-")))
        doors = {
            name: stack.enter_context(door(name, server, scratch, ROOT))
            for name, server in chosen.items()
        }
        if asked.before:
            before = asked.before.resolve()
            doors["before"] = stack.enter_context(door("before", {}, scratch, before))
        for running in doors.values():
            measure(running, 0.5)
        for number in range(asked.rounds):
            order = list(doors)
            random.Random(number).shuffle(order)
            for name in order:
                took.setdefault(name, []).append(measure(doors[name], asked.seconds))
            print(f"round {number + 1} of {asked.rounds}", file=sys.stderr, flush=True)
    for name, values in took.items():
        ratios = [value / off for value, off in zip(values, took["off"], strict=True)]
        told = {
            "setting": name,
            "cpu_us": round(statistics.median(values), 1),
            "lowest_us": round(min(values), 1),
            "of_off": round(statistics.median(ratios), 4),
        }
        print(json.dumps(told), flush=True)
    print(json.dumps({"spans_received": sink.num_spans}), flush=True)


if __name__ == "__main__":
    main()
