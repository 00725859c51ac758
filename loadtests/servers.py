"""Start a server for a measurement, know its port and its processes, and stop all of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from loadtests.connections import Target
from loadtests.generator import http_request
from loadtests.usage import Watched, process_tree
from loadtests.works import Body, Encoding, Work

ROOT = Path(__file__).resolve().parent.parent
BENCH_CONFIG = ROOT / "serve_configs" / "bench.yaml"
START_S = 180.0
STOP_S, STOP_PEER_S = 60.0, 5.0


class ServerFailed(Exception):
    """A server did not start; the message says what its log ended with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that answers. `version` is what was installed."""

    name: str
    version: str
    pid: int
    http_port: int
    grpc_port: int = 0
    metrics_port: int = 0

    def watched(self) -> Watched:
        """Its processes as they are now; Ray's workers take their names when they have work."""
        return Watched(pids=process_tree(self.pid))

    def target(self, path: str, body: Body) -> Target:
        request = http_request(path, body.content, body.headers)
        return Target(host="127.0.0.1", port=self.http_port, request=request)


def free_ports(num: int) -> list[int]:
    """Ports that nobody listens on now; below the range that outgoing connections use."""
    found: list[int] = []
    for port in range(18000 + os.getpid() % 3000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == num:
            return found
    raise ServerFailed("no free ports between 18000 and 32000")


@contextlib.contextmanager
def squadron(
    scratch: Path,
    *,
    python: Path | None = None,
    change: Callable[[dict[str, Any]], None] = lambda args: None,
) -> Iterator[Running]:
    """`squadron serve` of `bench.yaml` on free ports, in a Ray of its own.

    `python` is the interpreter of another checkout's environment, to compare two versions.
    `change` may alter the configuration's `args`.
    """
    http, grpc, metrics, second_door = free_ports(4)
    content = yaml.safe_load(BENCH_CONFIG.read_text())
    content["http_options"]["port"] = second_door
    args = content["applications"][0]["args"]
    for door, port in (("http", http), ("grpc", grpc), ("metrics", metrics)):
        args["server"][door]["port"] = port
    args["store"]["path"] = str(store_root())
    change(args)
    scratch.mkdir(parents=True, exist_ok=True)
    file = scratch / "bench.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    program = (python or Path(sys.executable)).with_name("squadron")
    command = [str(program), "serve", str(file), "--json"]
    with (
        _own_ray() as environment,
        _process(command, environment, scratch, patience_s=STOP_S) as child,
    ):
        _wait(child, lambda: _answers(f"http://127.0.0.1:{http}/v2/health/ready"), scratch)
        yield Running(
            name="squadron",
            version=_git_sha(),
            pid=child.pid,
            http_port=http,
            grpc_port=grpc,
            metrics_port=metrics,
        )


@contextlib.contextmanager
def process_server(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    scratch: Path,
    *,
    version: str,
    ports: Sequence[int],
    probe: Target | int,
) -> Iterator[Running]:
    """Any server that is ready when it answers `probe` with 200, or accepts at the port `probe`."""
    scratch.mkdir(parents=True, exist_ok=True)
    with (
        _own_ray() as own,
        _process(command, {**own, **environment}, scratch, patience_s=STOP_PEER_S) as child,
    ):
        _wait(child, lambda: _accepts(probe), scratch)
        yield Running(
            name=name,
            version=version,
            pid=child.pid,
            http_port=ports[0],
            grpc_port=ports[1],
            metrics_port=ports[2],
        )


def answers_once(target: Target, *, timeout_s: float = 10.0) -> int:
    """The status of one request over a connection of its own; 0 for none."""
    request = target.request.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
    address = (target.host, target.port)
    try:
        with socket.create_connection(address, timeout=timeout_s) as connection:
            connection.sendall(request)
            head = connection.recv(16)
    except OSError:
        return 0
    words = head.split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def _accepts(probe: Target | int) -> bool:
    if isinstance(probe, Target):
        return answers_once(probe) == 200
    try:
        socket.create_connection(("127.0.0.1", probe), timeout=5).close()
    except OSError:
        return False
    return True


def infer_path(model: str) -> str:
    return f"/v2/models/{model}/infer"


def squadron_target(
    running: Running,
    work: Work,
    encoding: Encoding | None = None,
    *,
    model: str = "",
    timeout_us: int = 0,
) -> Target:
    """`timeout_us`: a deadline the server may act on."""
    return running.target(infer_path(model or work.name), work.v2(encoding, timeout_us=timeout_us))


def store_root() -> Path:
    return Path(os.environ.get("SQUADRON_MODEL_STORE") or ROOT / "models").resolve()


@contextlib.contextmanager
def _own_ray() -> Iterator[dict[str, str]]:
    """A Ray that finds no other cluster of this machine and is found by none."""
    # Unix sockets have at most 107 bytes of path: a short folder directly below /tmp.
    with tempfile.TemporaryDirectory(prefix="sqb", ignore_cleanup_errors=True) as folder:
        yield {"RAY_ADDRESS": "local", "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}


@contextlib.contextmanager
def _process(
    command: Sequence[str],
    environment: Mapping[str, str],
    scratch: Path,
    *,
    patience_s: float,
) -> Iterator[subprocess.Popen[bytes]]:
    quiet = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", "TOKENIZERS_PARALLELISM": "false"}
    with (scratch / "server.log").open("wb") as log:
        child = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env={**os.environ, **quiet, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield child
        finally:
            _stop(child, patience_s)


def _stop(child: subprocess.Popen[bytes], patience_s: float) -> None:
    """Ask the parent, then end each process of its tree by its id (Triton outlives its parent)."""
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(child.pid).children(recursive=True)
    child.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(patience_s)
    _, alive = psutil.wait_procs(family, timeout=5)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    if child.poll() is None:
        child.kill()
        child.wait()


def _wait(child: subprocess.Popen[bytes], is_ready: Callable[[], bool], scratch: Path) -> None:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        if child.poll() is not None:
            break
        if is_ready():
            return
        time.sleep(0.3)
    log = (scratch / "server.log").read_text(errors="replace").strip().splitlines()
    raise ServerFailed(" | ".join(log[-6:])[-800:] or "it said nothing")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _git_sha() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def model_file(work: Work) -> Path:
    """The newest version's ONNX file in the store."""
    folder = store_root() / work.source
    newest = max(int(each.name) for each in folder.iterdir() if each.name.isdigit())
    return folder / str(newest) / "model.onnx"


def peer_work(work: Work, ports: Sequence[int], *, threads: int) -> str:
    """`PEER_WORK` for `peers/computing.py`."""
    import onnxruntime

    path = model_file(work)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    output = session.run([work.output], work.inputs())[0]
    return json.dumps(
        {
            "name": work.name,
            "path": str(path),
            "threads": threads,
            "port": ports[0],
            "grpc_port": ports[1],
            "metrics_port": ports[2],
            "max_batch_size": work.max_batch_size,
            "encoding": work.encoding,
            "output": work.output,
            "output_shape": list(output.shape[1:]),
            "inputs": [
                {
                    "name": name,
                    "dtype": str(array.dtype),
                    "shape": list(array.shape[1:]),
                    "count": array.size,
                    "num_bytes": array.nbytes,
                }
                for name, array in work.inputs().items()
            ],
        }
    )
