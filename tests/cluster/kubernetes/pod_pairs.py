"""A mistake and its nearest right form, for each rule of how a pod is written and Ray started."""

from __future__ import annotations

from typing import Any

from cluster.kubernetes.finding import Document
from tests.cluster.kubernetes.change import Pair, gpus, head, head_ray, limits, pod, ray, worker
from tests.cluster.kubernetes.change import set_env as _set

_LABELS = {"squadron.dev/role": "worker"}


def _both(manifest: Document, name: str, value: str) -> None:
    for container in (head_ray(manifest), ray(manifest)):
        _set(container, name, value)


def _spread(manifest: Document, **labels: str) -> None:
    pod(manifest)["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {**_LABELS, **labels}},
        }
    ]


def _shared(manifest: Document, **folder: str) -> None:
    pod(manifest)["volumes"].append({"name": "shm", "emptyDir": folder})
    ray(manifest)["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})


def _read_only(manifest: Document, at: str) -> None:
    ray(manifest)["securityContext"].update(readOnlyRootFilesystem=True)
    pod(manifest)["volumes"].append({"name": "written", "emptyDir": {}})
    ray(manifest)["volumeMounts"].append({"name": "written", "mountPath": at})


def _liveness(manifest: Document, **more: Any) -> None:
    asks = {"path": "/-/healthz", "port": 8000}
    ray(manifest)["livenessProbe"] = {"httpGet": asks, "periodSeconds": 5, **more}


def _parameter(manifest: Document, name: str, value: str) -> None:
    worker(manifest)["rayStartParams"][name] = value


SYNTAX = {
    "pod-name": Pair(
        bad=lambda m: ray(m)["ports"].append({"name": "squadron-door-grpc", "containerPort": 9000}),
        good=lambda m: ray(m)["ports"].append({"name": "squadron-door-g", "containerPort": 9000}),
    ),
    "pod-env": Pair(
        bad=lambda m: ray(m)["env"].append(
            {
                "name": "A",
                "value": "b",
                "valueFrom": {"secretKeyRef": {"name": "one", "key": "two"}},
            }
        ),
        good=lambda m: ray(m)["env"].append({"name": "A", "value": "b"}),
    ),
    "pod-probe": Pair(
        bad=lambda m: _liveness(m, tcpSocket={"port": 8000}),
        good=_liveness,
    ),
    "pod-resource": Pair(
        bad=lambda m: limits(m, cpu="4000"), good=lambda m: limits(m, cpu="4000m")
    ),
    "pod-spread": Pair(
        bad=lambda m: _spread(m, team="x"),
        good=_spread,
    ),
    "pod-root-read-only": Pair(
        bad=lambda m: _read_only(m, "/var/tmp"), good=lambda m: _read_only(m, "/tmp")
    ),
    "pod-shm": Pair(
        bad=lambda m: _shared(m, sizeLimit="2Gi"),
        good=lambda m: _shared(m, sizeLimit="2Gi", medium="Memory"),
    ),
}

START = {
    "start-parameter": Pair(
        bad=lambda m: _parameter(m, "num-cpu", "4"),
        good=lambda m: _parameter(m, "num-cpus", "4"),
    ),
    "start-port": Pair(
        bad=lambda m: head(m)["rayStartParams"].update({"dashboard-port": "8266"}),
        good=lambda m: head(m)["rayStartParams"].update({"dashboard-port": "8265"}),
    ),
    "start-gpus": Pair(
        bad=lambda m: (gpus(m, 1), _parameter(m, "num-gpus", "2")),
        good=lambda m: (gpus(m, 2), _parameter(m, "num-gpus", "2")),
    ),
    "env-unknown": Pair(
        bad=lambda m: _both(m, "SQUADRON_APIKEYS", "/models/api_keys.json"),
        good=lambda m: _both(m, "SQUADRON_API_KEYS", "/models/api_keys.json"),
    ),
    "env-differs": Pair(
        bad=lambda m: _set(ray(m), "SQUADRON_API_KEYS", "/models/api_keys.json"),
        good=lambda m: _both(m, "SQUADRON_API_KEYS", "/models/api_keys.json"),
    ),
    "fast-ingress": Pair(
        bad=lambda m: _both(m, "RAY_SERVE_ENABLE_HA_PROXY", "1"),
        good=lambda m: _both(m, "RAY_SERVE_ENABLE_HA_PROXY", "0"),
    ),
}

POD_PAIRS = {**SYNTAX, **START}
