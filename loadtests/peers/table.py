"""The peers: what each needs installed, how it is started, and what it is asked."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtests.connections import Target
from loadtests.generator import http_request
from loadtests.servers import Running, ServerFailed, free_ports, peer_work, process_server
from loadtests.works import Body, Work

FOLDER = Path(__file__).resolve().parent
ENVIRONMENTS = FOLDER.parent / ".peers"
INSTALL_S = 900


def _bare(work: Work) -> Body:
    return work.bare()


def _v2(work: Work) -> Body:
    return work.v2()


def _v2_json(work: Work) -> Body:
    return work.v2("json")


def _base64(work: Work) -> Body:
    if work.encoding == "json":
        return work.v2("json")
    content = json.dumps({"b64": base64.b64encode(work.bare().content).decode()}).encode()
    return Body(content=content, headers={"content-type": "application/json"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """`program` is a file of this folder. `package` is the one whose version is reported.

    `path` may hold `{model}`. `notes` go into the report beside its figures.
    """

    name: str
    program: str
    package: str
    requirements: tuple[str, ...]
    path: str
    body: Callable[[Work], Body]
    notes: str
    arguments: tuple[str, ...] = ()

    def python(self) -> Path:
        return ENVIRONMENTS / self.name / "bin" / "python"

    def target(self, work: Work, port: int) -> Target:
        body = self.body(work)
        path = self.path.format(model=work.name)
        return Target(
            host="127.0.0.1",
            port=port,
            request=http_request(path, body.content, body.headers),
        )


ENGINE = ("onnxruntime>=1.22", "numpy")
PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            name="bare_loop",
            program="bare_loop.py",
            package="uvloop",
            requirements=("uvloop", "httptools", "orjson", *ENGINE),
            path="/",
            body=_bare,
            notes="reference, not a server: no routing, validation, metrics, deadline; one process",
        ),
        Peer(
            name="mosec",
            program="mosec_peer.py",
            package="mosec",
            requirements=("mosec==0.9.8", "orjson", *ENGINE),
            path="/inference",
            body=_bare,
            arguments=("--address", "127.0.0.1", "--port", "{port}", "--timeout", "60000"),
            notes="wait 1 ms, orjson",
        ),
        Peer(
            name="triton",
            program="triton_peer.py",
            package="nvidia-pytriton",
            requirements=("nvidia-pytriton==0.7.0", *ENGINE),
            path="/v2/models/{model}/infer",
            body=_v2,
            notes="PyTriton's server 2.51, Python backend, delay 1 ms",
        ),
        Peer(
            name="litserve",
            program="litserve_peer.py",
            package="litserve",
            requirements=("litserve==0.2.19", *ENGINE),
            path="/predict",
            body=_base64,
            notes="batch timeout 1 ms; tensors as base64 in JSON",
        ),
        Peer(
            name="fastapi",
            program="fastapi_peer.py",
            package="fastapi",
            requirements=("fastapi", "uvicorn[standard]", "orjson", *ENGINE),
            path="/inference",
            body=_bare,
            notes="uvicorn, one process, no batching",
        ),
        Peer(
            name="ray_serve",
            program="ray_serve_peer.py",
            package="ray",
            requirements=("ray[serve]==2.60.0", "orjson", *ENGINE),
            path="/inference",
            body=_bare,
            notes="own proxy, @serve.batch with 1 ms",
        ),
        Peer(
            name="mlserver",
            program="mlserver_peer.py",
            package="mlserver",
            requirements=("mlserver", *ENGINE),
            path="/v2/models/{model}/infer",
            body=_v2_json,
            notes="parallel_workers 0, batch time 1 ms, JSON tensors",
        ),
    )
}


def install(peer: Peer) -> str:
    """Make the peer's environment where it is missing; the version installed.

    Raises: ServerFailed with the end of pip's output.
    """
    folder = ENVIRONMENTS / peer.name
    stamp = folder / "requirements.sha256"
    wanted = hashlib.sha256("\n".join(peer.requirements).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        pip = [str(peer.python()), "-m", "pip", "install", "--disable-pip-version-check"]
        _run([*pip, *peer.requirements])
        stamp.write_text(wanted)
    code = f"from importlib.metadata import version; print(version({peer.package!r}))"
    return _run([str(peer.python()), "-c", code]).strip()


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        raise ServerFailed(f"{command[0]} took longer than {INSTALL_S} s") from None
    if done.returncode:
        raise ServerFailed((done.stderr or done.stdout).strip()[-400:])
    return done.stdout


@contextlib.contextmanager
def started(peer: Peer, work: Work, scratch: Path, *, threads: int = 1) -> Iterator[Running]:
    """The peer serving one piece of work. Raises: ServerFailed."""
    version = install(peer)
    ports = free_ports(3)
    libraries = sysconfig.get_config_var("LIBDIR") or ""
    environment = {
        "PEER_WORK": peer_work(work, ports, threads=threads),
        # PyTriton's stub must load the libpython of this interpreter, not the system's.
        "LD_LIBRARY_PATH": os.pathsep.join(
            filter(None, (libraries, os.environ.get("LD_LIBRARY_PATH", "")))
        ),
        # What a peer starts by name (`ray`, `tritonserver`) is its own.
        "PATH": os.pathsep.join((str(peer.python().parent), os.environ.get("PATH", ""))),
    }
    arguments = [each.format(port=ports[0]) for each in peer.arguments]
    command = [str(peer.python()), str(FOLDER / peer.program), *arguments]
    with process_server(
        peer.name,
        command,
        environment,
        scratch,
        version=version,
        ports=ports,
        probe=peer.target(work, ports[0]),
    ) as running:
        yield running
