"""A Ray cluster of pods as KubeRay starts it: a head without work and workers, our Serve config.

The Serve config is that of our manifests with small models in place of the large ones; it is given
to the dashboard as the operator gives it.
"""

from __future__ import annotations

import copy
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from cluster.cli.serve import SERVE_ENVIRONMENT
from loadtests.fleet.manifest import Manifest, PodSpec, read_manifest
from loadtests.fleet.pods import Pod

HEAD_ADDRESS = "10.77.0.2"
PATIENCE_S = 240.0
# Several nodes start at once on few cores; nothing here is about how fast that is.
_SLOW_MACHINE = {"RAY_agent_register_timeout_ms": "180000", "RAY_enable_worker_prestart": "0"}
_OBJECT_STORE_BYTES = 100 * 2**20
PATIENT_MS = 2000
"""How long the slow model takes: requests that are under way when a pod is told to go."""


class Fleet:
    """`head_storage`: more environment of the head, for a state that outlives it. `store`: the
    models."""

    def __init__(
        self, folder: Path, store: Path, *, manifest: Path | None, head_storage: dict[str, str]
    ) -> None:
        self.folder = folder
        self.manifest: Manifest = read_manifest(manifest) if manifest else read_manifest()
        self.workers: list[Pod] = []
        self._starting: set[Pod] = set()
        self._head_storage = head_storage
        self._store = store
        token = secrets.token_hex(16)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._environment = {
            **SERVE_ENVIRONMENT,
            **_SLOW_MACHINE,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "SQUADRON_MODEL_STORE": str(store),
        }
        self.head = Pod("head", HEAD_ADDRESS, folder)

    def environment(self, spec: PodSpec) -> dict[str, str]:
        return {**self._environment, **spec.environment}

    def start_head(self) -> None:
        spec = self.manifest.head
        command = [*_ray("start"), "--head", "--dashboard-host=0.0.0.0", f"--port={6379}"]
        command += [f"--node-ip-address={HEAD_ADDRESS}", "--num-gpus=0"]
        command += _common(spec)
        if "REDIS_PASSWORD" in self._head_storage:
            # As the operator writes it: the shell puts it in.
            words = 'exec "$@" --redis-password="$REDIS_PASSWORD"'
            command = ["bash", "-c", words, "bash", *command]
        self.head.start(command, {**self.environment(spec), **self._head_storage})
        self._starting.add(self.head)
        self.until(self._has_dashboard, "the head's dashboard does not answer")

    def add_worker(self) -> Pod:
        number = len(self.workers) + 1
        pod = Pod(f"worker{number}", f"10.77.0.{10 + number}", self.folder)
        spec = self.manifest.worker
        environment = self.environment(spec)
        if self._head_storage:
            # So does the operator where the head's state outlives it.
            environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "600"
        command = [*_ray("start"), f"--address={HEAD_ADDRESS}:6379"]
        pod.start([*command, f"--node-ip-address={pod.address}", *_common(spec)], environment)
        self.workers.append(pod)
        self._starting.add(pod)
        return pod

    def deploy(self, *, nodes: int, is_controlled: bool = False) -> None:
        """The manifests' Serve config with small models, doors on `nodes` nodes. `is_controlled`:
        models can be loaded while it runs."""
        config = small(self.manifest.serve, str(self._store), nodes=nodes)
        if is_controlled:
            args = config["applications"][0]["args"]
            args["server"]["repository_control"] = "explicit"
        answer = httpx.put(
            f"http://{HEAD_ADDRESS}:8265/api/serve/applications/",
            json=config,
            headers=self._headers,
            timeout=60,
        )
        answer.raise_for_status()

    def applications(self) -> dict[str, Any]:
        """What Serve says of its applications; raises httpx.HTTPError while nobody answers."""
        url = f"http://{HEAD_ADDRESS}:8265/api/serve/applications/"
        answer = httpx.get(url, headers=self._headers, timeout=10)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()["applications"]
        return found

    def until(self, is_so: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> float:
        """Seconds it took. Raises: RuntimeError with the pods' last words."""
        began_s = time.monotonic()
        while not is_so():
            # Ray gives a node 30 s to start, which a busy machine may not do.
            for pod in self._starting:
                if not pod.is_running:
                    pod.start_again()
            if time.monotonic() - began_s > patience_s:
                raise RuntimeError(f"{what}; {self._last_words()}")
            time.sleep(0.2)
        return time.monotonic() - began_s

    def has_started(self) -> None:
        """From now on a pod that ends stays as it is."""
        self._starting.clear()

    def is_ready(self, pod: Pod) -> bool:
        """KubeRay's readiness probe at our port."""
        try:
            answer = httpx.get(f"http://{pod.address}:8000/-/healthz", timeout=2)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    def serves(self, pod: Pod) -> bool:
        try:
            answer = httpx.get(f"http://{pod.address}:8000/v2/health/ready", timeout=5)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    def stop(self) -> None:
        import signal

        for pod in [*self.workers, self.head]:
            if pod.is_running:
                pod.send(signal.SIGKILL)
                pod.wait(30)

    def _has_dashboard(self) -> bool:
        try:
            self.applications()
        except httpx.HTTPError:
            return False
        return True

    def _last_words(self) -> str:
        return " | ".join(
            f"{pod.name}: {pod.log.read_text()[-600:]}" for pod in [self.head, *self.workers]
        )


@contextmanager
def fleet(
    folder: Path,
    store: Path,
    *,
    num_workers: int,
    nodes: int | None = None,
    manifest: Path | None = None,
    head_storage: dict[str, str] | None = None,
    is_controlled: bool = False,
) -> Iterator[Fleet]:
    """Running, with a door on every worker that answers for all models."""
    made = Fleet(folder, store, manifest=manifest, head_storage=head_storage or {})
    try:
        made.start_head()
        for _ in range(num_workers):
            made.add_worker()
        made.deploy(nodes=nodes or num_workers, is_controlled=is_controlled)
        for pod in made.workers:
            made.until(lambda pod=pod: made.serves(pod), f"{pod.name} has no ready door")
        made.has_started()
        yield made
    finally:
        made.stop()


def small(serve: dict[str, Any], store: str, *, nodes: int) -> dict[str, Any]:
    """The manifests' config with models that take little of a machine with two cores: a trained
    one, one that takes long, and an experiment."""
    config = copy.deepcopy(serve)
    args = config["applications"][0]["args"]
    args["server"]["nodes"] = nodes
    args["store"] = {"path": store}
    tensor = {"datatype": "FP32", "shape": [-1, 4]}
    card = {
        "format": "fake",
        "signature": {"inputs": [{"name": "x", **tensor}], "outputs": [{"name": "y", **tensor}]},
    }
    args["variants"] = {
        "sentiment-head": {"source": "sentiment-head", "replicas": nodes},
        "patient": {
            "engine": "fake",
            "card": {"name": "patient", **card},
            "options": {"delay_ms": PATIENT_MS},
            "replicas": nodes,
        },
        "arm-a": {"engine": "fake", "card": {"name": "arm-a", **card}},
        "arm-b": {"engine": "fake", "card": {"name": "arm-b", **card}},
    }
    args["experiments"] = {"trial": {"split": {"arm-a": 90, "arm-b": 10}}}
    args.pop("ensembles", None)
    return config


def _ray(command: str) -> list[str]:
    return [str(Path(sys.executable).with_name("ray")), command]


def _common(spec: PodSpec) -> list[str]:
    params = {**spec.start_params}
    params.pop("dashboard-host", None)
    params.pop("num-gpus", None)
    return [
        f"--num-cpus={spec.num_cpus}",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        "--metrics-export-port=8080",
        "--disable-usage-stats",
        "--block",
        *(f"--{name}={value}" for name, value in params.items()),
    ]


def store_of(given: Path | None) -> Path:
    return (given or Path(os.environ.get("SQUADRON_MODEL_STORE") or "models")).resolve()
