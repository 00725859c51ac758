"""The commands that KubeRay puts into our pods, run as the kubelet does, against a real server.

Source: KubeRay 1.7, `initLivenessAndReadinessProbe` and `BaseWgetHealthCommand`; the ports are
parameters there too. With `rayVersion` 2.53 and later a worker's readiness is `READY`, everything
else one GET of `/api/healthz`; before that, head and workers had `HEAD` and the first half of it.
"""

from __future__ import annotations

import shutil
import subprocess

import httpx
import psutil
import pytest

from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.models]

RAYLET = (
    "wget --tries 1 -T 2 -q -O- http://localhost:{agent}/api/local_raylet_healthz | grep success"
)
SERVE = "wget --tries 1 -T 10 -q -O- http://localhost:{serve}/-/healthz | grep success"
GCS = "wget --tries 1 -T 10 -q -O- http://localhost:{dashboard}/api/gcs_healthz | grep success"
READY = f"{RAYLET} && {SERVE}"
HEAD = f"{RAYLET} && {GCS}"


def probe(command: str, **ports: int) -> int:
    done = subprocess.run(
        ["bash", "-c", command.format(**ports)], capture_output=True, timeout=60, check=False
    )
    return done.returncode


def agent_port(prod: Running) -> int:
    """Of Ray's agent on this node; in a pod it is always 52365."""
    (pid,) = prod.pids("DashboardAgent")
    ports = {
        connection.laddr.port
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.ip == "127.0.0.1"
    }
    if not ports:
        pytest.skip("another Ray on this machine has the agent's port 52365; in a pod none does")
    return min(ports)


def ports_of(prod: Running) -> tuple[int, int]:
    door, ingress = (int(each.rsplit(":", 1)[1]) for each in (prod.http, prod.second_door))
    return door, ingress


def test_kuberays_probes_find_our_doors_where_they_are_and_nowhere_else(prod: Running) -> None:
    missing = [name for name in ("wget", "bash", "grep") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"KubeRay's probes need {', '.join(missing)}; our images have them")
    agent, (door, ingress) = agent_port(prod), ports_of(prod)
    dashboard = int(prod.dashboard().rsplit(":", 1)[1])

    # The container port named `serve` is our own door's; Serve's ingress answers the same.
    assert probe(READY, agent=agent, serve=door) == 0
    assert probe(READY, agent=agent, serve=ingress) == 0
    assert probe(HEAD, agent=agent, dashboard=dashboard) == 0
    healthy = httpx.get(f"http://127.0.0.1:{agent}/api/healthz", timeout=10)
    assert (healthy.status_code, "raylet: success" in healthy.text) == (200, True)
    # A probe that cannot fail shows nothing. Nobody listens on port 1.
    assert probe(READY, agent=agent, serve=1) != 0
    assert probe(READY, agent=1, serve=door) != 0
    assert probe(SERVE.replace("-/healthz", "-/routes"), serve=door) != 0
