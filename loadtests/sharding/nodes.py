"""`python -m loadtests.sharding.nodes`: a pipeline over several raylets, one of them killed.

Every raylet is a node to Ray; the bundles of a replica must lie on different ones, so activations
go by TCP. `kill -9` ends the raylet of one shard with all its workers, as a dead machine would.
One JSON object: the nodes, the answers around the kill, seconds to recover.

A raylet gives up when its agent has not come within 30 s, and on two busy cores several nodes may
take longer to start than that: hence the patience, the small stores, no worker that is not asked
for, and no dashboard, whose port another Ray on the machine may have.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import psutil
import yaml
from ray.cluster_utils import Cluster

from cluster.cli.serve import SERVE_ENVIRONMENT

MODEL = "lite0-spread2"
PATIENCE_S = 200.0
ATTEMPTS = 3
NUM_NODES = 5
NODE = {"num_cpus": 2, "object_store_memory": 80 * 2**20}
ENVIRONMENT = {
    **SERVE_ENVIRONMENT,
    "RAY_agent_register_timeout_ms": "180000",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    # A node that is gone is taken for dead after some 3 s, not 15.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "2",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("models"))
    store = parser.parse_args().store.resolve()
    os.environ.update(ENVIRONMENT)
    for _ in range(ATTEMPTS):
        found = _measured(store)
        if found is not None:
            print(json.dumps(found), flush=True)
            return
    raise SystemExit("every shard's node had the door or Serve's controller beside it")


def _measured(store: Path) -> dict[str, object] | None:
    """None when Ray put the door or Serve's controller beside each of the shards."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    served: subprocess.Popen[bytes] | None = None
    try:
        for _ in range(NUM_NODES - 1):
            cluster.add_node(**NODE)
        with tempfile.TemporaryDirectory() as folder:
            port, file = _config(Path(folder), store)
            served = subprocess.Popen(
                [str(Path(sys.executable).with_name("serve")), "run", str(file)],
                env={**os.environ, "RAY_ADDRESS": cluster.address},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            return _kill_a_node(f"http://127.0.0.1:{port}")
    finally:
        if served is not None:
            served.terminate()
            served.wait(60)
        cluster.shutdown()


def _kill_a_node(url: str) -> dict[str, object] | None:
    _until(lambda: _answers(url), "the model did not become ready")
    before = _shards()
    raylets = {rank: _raylet(pid) for rank, pid in before.items()}
    victim = _without_a_door(list(raylets.values()))
    if victim is None:
        return None
    statuses: Counter[int] = Counter()
    is_over = threading.Event()

    def load() -> None:
        with httpx.Client(timeout=120) as client:
            while not is_over.is_set():
                statuses[_ask(client, url)] += 1

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    _until(lambda: statuses[200] > 10, "no answers before the kill")
    doomed = [victim, *victim.children(recursive=True)]
    for process in doomed:
        process.send_signal(signal.SIGKILL)
    killed_s = time.monotonic()
    _until(lambda: set(now := _shards()) == set(before) and not _same(now, before), "no new group")
    answered = statuses[200]
    _until(lambda: statuses[200] > answered + 5, "no answers afterwards")
    recovered_s = time.monotonic() - killed_s
    is_over.set()
    for thread in threads:
        thread.join()
    return {
        "nodes_of_shards": len({raylet.pid for raylet in raylets.values()}),
        "statuses": {str(status): count for status, count in statuses.items()},
        "recovered_s": round(recovered_s, 1),
    }


def _config(folder: Path, store: Path) -> tuple[int, Path]:
    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        ports = []
        for probe in (first, second, third):
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
    doors = {
        name: {"host": "127.0.0.1", "port": port}
        for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)
    }
    variant = {
        "source": "efficientnet-lite0",
        "device": "cpu",
        "processed": False,
        "placement": {
            "strategy": "pipeline",
            "shards": 2,
            "bundles": "STRICT_SPREAD",
            "heartbeat_timeout_s": 2,
        },
    }
    args = {"server": doors, "store": {"path": str(store)}, "variants": {MODEL: variant}}
    app = {"name": "squadron", "route_prefix": "/", "import_path": "actors.app:build", "args": args}
    file = folder / "nodes.yaml"
    http = {"host": "127.0.0.1", "port": 0}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        http["port"] = int(probe.getsockname()[1])
    content = {"proxy_location": "Disabled", "http_options": http, "applications": [app]}
    file.write_text(yaml.safe_dump(content))
    return ports[0], file


def _ask(client: httpx.Client, url: str) -> int:
    image = np.zeros((1, 3, 224, 224), np.float32)
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": image.shape,
        "parameters": {"binary_data_size": image.nbytes},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    answer = client.post(
        f"{url}/v2/models/{MODEL}/infer",
        content=head + image.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    return answer.status_code


def _answers(url: str) -> bool:
    try:
        with httpx.Client(timeout=60) as client:
            return _ask(client, url) == 200
    except httpx.TransportError:
        return False


def _shards() -> dict[int, int]:
    """The processes of the model's shards by rank."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        title = (process.info["cmdline"] or [""])[0]
        if title.startswith(f"squadron:{MODEL}:"):
            found[int(title.rpartition("shard")[2])] = process.pid
    return found


def _same(one: dict[int, int], other: dict[int, int]) -> bool:
    return bool(set(one.values()) & set(other.values()))


def _raylet(pid: int) -> psutil.Process:
    for process in psutil.Process(pid).parents():
        if "raylet" in process.name():
            return process
    raise RuntimeError(f"process {pid} has no raylet above it")


def _without_a_door(raylets: list[psutil.Process]) -> psutil.Process | None:
    """A node whose end leaves the door and Serve's controller alive: it is a shard that is lost."""
    for raylet in raylets:
        titles = [" ".join(child.cmdline()) for child in raylet.children(recursive=True)]
        if not any("gateway" in title or "ServeController" in title for title in titles):
            return raylet
    return None


def _until(is_so: object, what: str) -> None:
    assert callable(is_so)
    until_s = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > until_s:
            raise SystemExit(what)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
