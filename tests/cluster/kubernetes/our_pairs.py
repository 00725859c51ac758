"""A mistake and its nearest right form, for each rule of pods, policies, Serve's config and fit."""

from __future__ import annotations

from typing import Any

from cluster.kubernetes.finding import Document
from tests.cluster.kubernetes.change import (
    Pair,
    arguments,
    autoscaled,
    cluster,
    configure,
    gpus,
    head,
    head_pod,
    head_ray,
    limits,
    only,
    pod,
    ray,
    set_env,
    state,
    worker,
)

_ROTATION = "RAY_ROTATION_MAX_BYTES"
_DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"


def _hook(manifest: Document, **hook: Any) -> None:
    ray(manifest)["lifecycle"] = {"preStop": hook}


def _exec(manifest: Document, *command: str) -> None:
    _hook(manifest, exec={"command": list(command)})


def _logs(manifest: Document, **bound: str) -> None:
    pod(manifest)["volumes"].append({"name": "ray-logs", "emptyDir": bound})
    ray(manifest)["volumeMounts"].append({"name": "ray-logs", "mountPath": "/tmp/ray"})
    ray(manifest)["env"] = [each for each in ray(manifest)["env"] if "ROTATION" not in each["name"]]


def _start(manifest: Document, shell: str, text: str) -> None:
    ray(manifest)["command"] = [shell, "-c", text]


def _container(manifest: Document, name: str) -> None:
    pod(manifest)["containers"].append({"name": name, "image": "sidecar:1"})


def _longest(manifest: Document, timeout_s: float) -> None:
    arguments(manifest, lambda args: args["server"].update(limits={"default_timeout_s": timeout_s}))


def _server(manifest: Document, **options: Any) -> None:
    arguments(manifest, lambda args: args["server"].update(options))


def _probe(manifest: Document, path: str, port: int) -> None:
    ray(manifest)["readinessProbe"] = {"httpGet": {"path": path, "port": port}}


def _stored(manifest: Document, path: str) -> None:
    arguments(manifest, lambda args: args["store"].update(path=path))


def _state(manifest: Document, password: str) -> None:
    _server(manifest, state_postgres={"url": f"postgresql://squadron:{password}@db/squadron"})


def _misspelt(manifest: Document, key: str) -> None:
    """A key of ours."""
    arguments(manifest, lambda args: args["variants"]["text-embedder"].update({key: 1}))


def _deployment(manifest: Document, **options: Any) -> None:
    """Options that Serve, and not we, read."""
    configure(
        manifest,
        lambda config: config["applications"][0].update(
            deployments=[{"name": "gateway", **options}]
        ),
    )


def _environment(config: dict[str, Any], **variables: str) -> None:
    config["applications"][0]["runtime_env"] = {"env_vars": variables}


def _second(manifest: Document, **app: str) -> None:
    configure(
        manifest,
        lambda config: config["applications"].append(
            {"name": "other", "route_prefix": "/other", "import_path": "theirs:app", **app}
        ),
    )


PODS = {
    "pod-quantity": Pair(
        bad=lambda m: limits(m, memory="8GiB"),
        good=lambda m: limits(m, memory="8589934592"),
    ),
    "pod-request-above-limit": Pair(
        bad=lambda m: ray(m)["resources"]["requests"].update(cpu="4001m"),
        good=lambda m: ray(m)["resources"]["requests"].update(cpu="4000m"),
    ),
    "pod-extended-resource": Pair(
        bad=lambda m: ray(m)["resources"]["requests"].update({"nvidia.com/gpu": 1}),
        good=lambda m: limits(m, **{"nvidia.com/gpu": "1"}),
    ),
    "pod-duplicate-container": Pair(
        bad=lambda m: _container(m, "ray"), good=lambda m: _container(m, "other")
    ),
    "pod-duplicate-volume": Pair(
        bad=lambda m: pod(m)["volumes"].append({"name": "models", "emptyDir": {}}),
        good=lambda m: pod(m)["volumes"].append({"name": "more", "emptyDir": {}}),
    ),
    "pod-duplicate-env": Pair(
        bad=lambda m: ray(m)["env"].append({"name": _DRAIN, "value": "90"}),
        good=lambda m: ray(m)["env"].append({"name": "OTHER", "value": "90"}),
    ),
    "pod-duplicate-port": Pair(
        bad=lambda m: ray(m)["ports"].append({"name": "again", "containerPort": 8000}),
        good=lambda m: ray(m)["ports"].append(
            {"name": "again", "containerPort": 8000, "protocol": "UDP"}
        ),
    ),
    "pod-duplicate-mount": Pair(
        bad=lambda m: ray(m)["volumeMounts"].append({"name": "models", "mountPath": "/models"}),
        good=lambda m: ray(m)["volumeMounts"].append({"name": "models", "mountPath": "/again"}),
    ),
    "pod-privileged": Pair(
        bad=lambda m: ray(m)["securityContext"].update(privileged=True),
        good=lambda m: ray(m)["securityContext"].update(privileged=False),
    ),
    "pod-hook": Pair(
        bad=lambda m: ray(m).update(lifecycle={"preStop": [{"sleep": {"seconds": 10}}]}),
        good=lambda m: _exec(m, "/bin/sleep", "10"),
    ),
    "pod-hook-too-long": Pair(
        bad=lambda m: _exec(m, "/bin/sh", "-c", "sync; sleep 2m"),
        good=lambda m: _exec(m, "/bin/sh", "-c", "sync; sleep 15"),
    ),
    "pod-unknown-volume": Pair(
        bad=lambda m: ray(m)["volumeMounts"].append({"name": "modles", "mountPath": "/m"}),
        good=lambda m: ray(m)["volumeMounts"].append({"name": "models", "mountPath": "/m"}),
    ),
    "pod-image-tag": Pair(
        bad=lambda m: pod(m)["containers"].append({"name": "more", "image": "a.b:5000/sidecar"}),
        good=lambda m: pod(m)["containers"].append({"name": "more", "image": "a.b:5000/sidecar:1"}),
    ),
    "pod-exec-in-pipe": Pair(
        bad=lambda m: ray(m).update(args=["cat a | exec ray start"]),
        good=lambda m: ray(m).update(args=["cat a > b && exec ray start"]),
    ),
    "pod-port": Pair(
        bad=lambda m: ray(m)["ports"].append({"containerPort": 65536}),
        good=lambda m: ray(m)["ports"].append({"containerPort": 65535}),
    ),
    "inline-secret": Pair(
        bad=lambda m: set_env(ray(m), "OPENAI_API_KEY", "abc"),
        good=lambda m: [
            set_env(each, "SQUADRON_API_KEYS", "/models/api_keys.json")
            for each in (ray(m), head_ray(m))
        ],
    ),
}

POLICIES = {
    "ray-api": Pair(bad=lambda m: m.update(apiVersion="ray.io/v1alpha1")),
    "drain-grace": Pair(
        bad=lambda m: pod(m).update(terminationGracePeriodSeconds=114),
        good=lambda m: pod(m).update(terminationGracePeriodSeconds=115),
    ),
    "drain-too-short": Pair(
        bad=lambda m: (set_env(ray(m), _DRAIN, "30"), _longest(m, 25)),
        good=lambda m: (set_env(ray(m), _DRAIN, "31"), _longest(m, 25)),
    ),
    "ray-stop": Pair(
        bad=lambda m: _exec(m, "/bin/sh", "-c", "ray  stop --force"),
        good=lambda m: _exec(m, "/bin/sh", "-c", "ray status"),
    ),
    "ray-version": Pair(
        bad=lambda m: cluster(m).update(rayVersion=""),
        also=frozenset({"operator-token-auth"}),
    ),
    "one-image": Pair(bad=lambda m: ray(m).update(image="squadron:0.2.0")),
    "token-auth": Pair(bad=lambda m: cluster(m).update(authOptions={"mode": "disabled"})),
    "group-name": Pair(
        bad=lambda m: cluster(m)["workerGroupSpecs"].append({**worker(m), "replicas": 0}),
        good=lambda m: cluster(m)["workerGroupSpecs"].append(
            {**worker(m), "replicas": 0, "minReplicas": 0, "groupName": "others"}
        ),
        also=frozenset({"doors"}),
    ),
    "log-rotation": Pair(
        bad=lambda m: _logs(m, sizeLimit="2Gi"),
        good=lambda m: (_logs(m, sizeLimit="2Gi"), set_env(ray(m), _ROTATION, "16777216")),
    ),
    "max-replicas": Pair(
        bad=lambda m: (autoscaled(m), worker(m).pop("maxReplicas")),
        good=autoscaled,
        # Of a group without a bound the checker counts `replicas`, too few for the config.
        also=frozenset({"resource-fit"}),
    ),
    "requests-limits": Pair(
        bad=lambda m: ray(m)["resources"]["requests"].update(memory="8191Mi"),
        good=lambda m: ray(m)["resources"]["requests"].update(memory="8192Mi"),
    ),
    "memory-limit": Pair(
        bad=lambda m: (
            ray(m)["resources"]["limits"].pop("memory"),
            ray(m)["resources"]["limits"].update(cpu="4"),
        ),
    ),
}

SERVE = {
    "serve-yaml": Pair(bad=lambda m: m["spec"].update(serveConfigV2="a: 1\na: 2\n")),
    "serve-proxies": Pair(
        bad=lambda m: configure(m, lambda c: c.update(proxy_location="HeadOnly"))
    ),
    "serve-duplicate": Pair(bad=lambda m: _second(m, route_prefix="/"), good=lambda m: _second(m)),
    "serve-import-path": Pair(
        bad=lambda m: _second(m, import_path="actors.app:biuld"), good=lambda m: _second(m)
    ),
    "serve-secret": Pair(
        bad=lambda m: configure(m, lambda c: _environment(c, HF_TOKEN="hunter2")),
        good=lambda m: configure(m, lambda c: _environment(c, OMP_NUM_THREADS="2")),
    ),
    "serve-unknown-key": Pair(
        bad=lambda m: _deployment(m, num_replica=2), good=lambda m: _deployment(m, num_replicas=2)
    ),
    "serve-value": Pair(
        bad=lambda m: _deployment(m, max_surge_percent=101),
        good=lambda m: _deployment(m, max_surge_percent=100),
    ),
    "serve-config": Pair(
        bad=lambda m: _misspelt(m, "replica"), good=lambda m: _misspelt(m, "replicas")
    ),
    "doors": Pair(
        bad=lambda m: worker(m).update(replicas=2, maxReplicas=2),
        good=lambda m: (autoscaled(m), worker(m).update(replicas=1, maxReplicas=2)),
    ),
    "drain-requests": Pair(bad=lambda m: _longest(m, 86), good=lambda m: _longest(m, 85)),
    "deletion-delay": Pair(
        bad=lambda m: m["spec"].update(rayClusterDeletionDelaySeconds=59),
        good=lambda m: m["spec"].update(rayClusterDeletionDelaySeconds=60),
    ),
    "resource-fit": Pair(
        bad=lambda m: (gpus(m, 1), only(m, resources={"num_gpus": 2})),
        good=lambda m: (gpus(m, 2), only(m, resources={"num_gpus": 2})),
    ),
}

DOORS = {
    "door-host": Pair(
        bad=lambda m: _server(m, http={"host": "127.0.0.1", "port": 8000}),
        good=lambda m: _server(m, http={"host": "0.0.0.0", "port": 8000}),
    ),
    "door-tls": Pair(bad=lambda m: _server(m, tls={"cert": "/models/c", "key": "/models/k"})),
    "door-port": Pair(
        bad=lambda m: configure(m, lambda config: config["http_options"].update(port=8002)),
        good=lambda m: configure(m, lambda config: config["http_options"].update(port=8003)),
    ),
    "door-probe": Pair(
        bad=lambda m: _probe(m, "/v2/health/ready", 8500 + 1),
        good=lambda m: _probe(m, "/v2/health/ready", 8000),
    ),
    "head-served": Pair(bad=lambda m: m["spec"].pop("excludeHeadPodFromServeSvc")),
    "config-keys": Pair(
        bad=lambda m: _server(m, api_keys="/etc/squadron/keys/api_keys.json"),
        good=lambda m: _server(m, api_keys="/models/api_keys.json"),
    ),
    "config-store": Pair(
        bad=lambda m: _stored(m, "/model"), good=lambda m: _stored(m, "/models/mine")
    ),
    "config-reference": Pair(
        bad=lambda m: _state(m, "${file:/run/secrets/pg}"),
        good=lambda m: _state(m, "${file:/models/pg}"),
    ),
    "ray-port-exposed": Pair(
        bad=lambda m: head(m).update(serviceType="LoadBalancer"),
        good=lambda m: head(m).update(serviceType="ClusterIP"),
    ),
}

RISKS = {
    "drain-pause": Pair(
        bad=lambda m: ray(m).pop("lifecycle"),
        good=lambda m: _exec(m, "/bin/sleep", "5"),
    ),
    "shell-keeps-signals": Pair(
        bad=lambda m: _start(m, "sh", "ulimit -n 65536; ray start --address=head:6379 --block"),
        good=lambda m: _start(m, "sh", "ulimit -n 65536; exec ray start --address=head:6379"),
    ),
    "head-work": Pair(
        bad=lambda m: head(m)["rayStartParams"].pop("num-cpus"),
        good=lambda m: (
            head(m).update(resources={"CPU": "0"}),
            [head(m)["rayStartParams"].pop(key) for key in ("num-cpus", "num-gpus")],
        ),
    ),
    "head-spot": Pair(
        bad=lambda m: head_pod(m).update(nodeSelector={"karpenter.sh/capacity-type": "spot"}),
        good=lambda m: (
            head_pod(m).update(nodeSelector={"karpenter.sh/capacity-type": "on-demand"}),
            pod(m).update(nodeSelector={"karpenter.sh/capacity-type": "spot"}),
        ),
    ),
    "state-shared": Pair(
        bad=lambda m: state(m, redisAddress="redis:6379", externalStorageNamespace="x"),
        good=lambda m: state(m, redisAddress="redis:6379"),
    ),
    "worker-token": Pair(bad=lambda m: pod(m).pop("automountServiceAccountToken")),
}

OUR_PAIRS = {**DOORS, **PODS, **POLICIES, **RISKS, **SERVE}
