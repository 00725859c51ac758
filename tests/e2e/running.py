"""Squadron as a user starts it: the command line, real Ray, real sockets; stopped by its own id."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

STOP_PATIENCE_S = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """`http` is `http://host:port`, `grpc` is `host:port`, `second_door` is Serve's own ingress."""

    http: str
    grpc: str
    metrics: str
    second_door: str
    process: subprocess.Popen[str]
    ready: dict[str, Any]

    @property
    def http_address(self) -> str:
        return self.http.removeprefix("http://")

    def pids(self, title: str) -> list[int]:
        """Processes below this Squadron whose title contains `title`."""
        return [
            child.pid
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if title in _title(child)
        ]

    def dashboard(self) -> str:
        """Ray's dashboard of this cluster: where `serve deploy` talks to."""
        (pid,) = self.pids("dashboard/dashboard.py")
        ports = {
            connection.laddr.port
            for connection in psutil.Process(pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and 8265 <= connection.laddr.port < 8365
        }
        return f"http://127.0.0.1:{min(ports)}"

    def replica_pids(self, variant: str) -> list[int]:
        return self.pids(f"ServeReplica:squadron:variant-{variant}")


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def running(file: Path, folder: Path, *, store: Path | None = None) -> Iterator[Running]:
    """Start a serve config on ports given by the system; stop it whatever happens."""
    content = yaml.safe_load(file.read_text())
    ports = free_ports(4)
    server = content["applications"][0]["args"].setdefault("server", {})
    for door, port in zip(("http", "grpc", "metrics"), ports, strict=False):
        server[door] = {"host": "127.0.0.1", "port": port}
    content["http_options"]["port"] = ports[3]
    copy = folder / file.name
    copy.write_text(yaml.safe_dump(content))
    with started([str(copy)], folder, second_door_port=ports[3], store=store) as found:
        yield found


@contextmanager
def running_model(target: str, folder: Path, *options: str) -> Iterator[Running]:
    """`squadron serve TARGET` for one model without a YAML, on ports given by the system."""
    http, grpc, metrics = free_ports(3)
    ports = ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
    with started([target, *ports, *options], folder) as found:
        yield found


@contextmanager
def started(
    arguments: list[str], folder: Path, *, second_door_port: int = 0, store: Path | None = None
) -> Iterator[Running]:
    environment = dict(os.environ)
    if store is not None:
        environment["SQUADRON_MODEL_STORE"] = str(store)
    environment.pop("RAY_ADDRESS", None)
    # What one test's server kept must not be found by another's.
    environment["SQUADRON_STATE"] = str(folder / "state")
    program = Path(sys.executable).with_name("squadron")
    with (folder / "serve.stderr").open("w") as errors:
        process = subprocess.Popen(
            [str(program), "serve", *arguments, "--json", "--verbose"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            start_new_session=True,
        )
        family = _Family(process)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"no ready line:\n{(folder / 'serve.stderr').read_text()[-4000:]}"
            ready = json.loads(line)
            yield Running(
                http=ready["http"],
                grpc=ready["grpc"],
                metrics=ready["metrics"],
                second_door=f"http://127.0.0.1:{second_door_port}",
                process=process,
                ready=ready,
            )
        finally:
            family.stop()


class _Family:
    """The process and everything below it; nothing may survive a test run."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def stop(self) -> None:
        if self._process.poll() is None:
            below = psutil.Process(self._process.pid).children(recursive=True)
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
            _, alive = psutil.wait_procs(below, timeout=10)
            for left in alive:
                left.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different; below those that the system gives to
    outgoing connections, one of which would take a port before the server does."""
    probes: list[socket.socket] = []
    try:
        while len(probes) < count:
            probe = socket.socket()
            try:
                probe.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
            except OSError:
                probe.close()
            else:
                probes.append(probe)
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
