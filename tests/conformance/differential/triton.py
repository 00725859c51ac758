"""The real Triton server: the binary inside the PyTriton wheel, without PyTriton around it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx

from loadtests.peers.table import PEERS, install
from loadtests.servers import ServerFailed
from tests.e2e.running import free_ports

START_S = 60.0
STOP_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Triton:
    """`http` is `http://host:port`, `grpc` is `host:port`."""

    http: str
    grpc: str


@contextmanager
def triton(
    repository: Path, scratch: Path, *, python_backends: Mapping[str, Path] = MappingProxyType({})
) -> Iterator[Triton]:
    """Triton with every model of a repository. Raises: ServerFailed with the end of its log.

    `python_backends`: name of a backend -> its program for Triton's Python backend.
    """
    install(PEERS["triton"])
    http, grpc = free_ports(2)
    backends, program, libraries = _installed(scratch)
    for name, source in python_backends.items():
        (backends / name).mkdir()
        shutil.copy(source, backends / name / "model.py")
    command = [
        str(program),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        "--allow-metrics=false",
    ]
    environment = {
        **os.environ,
        # The stub must load the libpython of this interpreter, not the system's.
        "LD_LIBRARY_PATH": os.pathsep.join((sysconfig.get_config_var("LIBDIR") or "", *libraries)),
        "PATH": os.pathsep.join(
            (str(PEERS["triton"].python().parent), os.environ.get("PATH", os.defpath))
        ),
    }
    log = scratch / "triton.log"
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            _wait(child, f"http://127.0.0.1:{http}/v2/health/ready", log)
            yield Triton(http=f"http://127.0.0.1:{http}", grpc=f"127.0.0.1:{grpc}")
        finally:
            child.terminate()
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _installed(scratch: Path) -> tuple[Path, Path, list[str]]:
    """A backend folder with this interpreter's stub in it, the program and its library folders."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    packages = PEERS["triton"].python().parents[1] / "lib" / f"python{python}" / "site-packages"
    server = packages / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / python / "triton_python_backend_stub"
    if not stub.is_file():
        raise ServerFailed(f"the PyTriton wheel has no stub for Python {python}")
    backends = scratch / "backends"
    shutil.copytree(server / "backends", backends)
    shutil.copy(stub, backends / "python")
    return backends, server / "bin" / "tritonserver", [str(packages / "nvidia_pytriton.libs")]


def _wait(child: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s and child.poll() is None:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise ServerFailed(log.read_text(errors="replace")[-800:])
