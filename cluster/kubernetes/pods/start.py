"""How Ray is started in its pods: parameters and environment that the manifests must agree on."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator

from cluster.config.server import KEYS_VARIABLE, NODES_VARIABLE
from cluster.kubernetes.finding import Document, Finding, Group, groups_of
from cluster.kubernetes.guard import guarded
from cluster.kubernetes.pods.quantity import is_quantity, quantity

PARAMETERS = frozenset(
    [
        "address",
        "autoscaling-config",
        "block",
        "cgroup-path",
        "dashboard-agent-grpc-port",
        "dashboard-agent-listen-port",
        "dashboard-host",
        "dashboard-port",
        "disable-usage-stats",
        "enable-object-reconstruction",
        "enable-resource-isolation",
        "head",
        "include-dashboard",
        "include-log-monitor",
        "labels",
        "labels-file",
        "log-color",
        "log-style",
        "max-worker-port",
        "memory",
        "metrics-export-port",
        "min-worker-port",
        "no-monitor",
        "no-redirect-output",
        "node-ip-address",
        "node-manager-port",
        "node-name",
        "num-cpus",
        "num-gpus",
        "object-manager-port",
        "object-spilling-directory",
        "object-store-memory",
        "plasma-directory",
        "port",
        "proxy-server-url",
        "ray-client-server-port",
        "ray-debugger-external",
        "redis-password",
        "redis-shard-ports",
        "redis-username",
        "resources",
        "runtime-env-agent-port",
        "system-config",
        "system-reserved-cpu",
        "system-reserved-memory",
        "temp-dir",
        "tracing-startup-hook",
        "verbose",
        "worker-port-list",
    ]
)
"""Of `ray start --help`, Ray 2.60; a test holds the list against the Ray that is installed."""
VARIABLES = (
    KEYS_VARIABLE,
    NODES_VARIABLE,
    "SQUADRON_MODEL_CACHE",
    "SQUADRON_MODEL_STORE",
    "SQUADRON_ARTEFACT_CACHE",
    "SQUADRON_STATE",
)
"""What a server reads of its environment."""
FAST_INGRESS = ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED")
_PORTS = {
    "port": ("gcs-server", 6379),
    "dashboard-port": ("dashboard", 8265),
    "ray-client-server-port": ("client", 10001),
}
_METRICS_PORT = 8080
_ALIKE = ("RAY_SERVE_", "SQUADRON_")
_GPU = "nvidia.com/gpu"


def check_start(service: Document) -> list[Finding]:
    """Of one RayService."""
    return [
        finding for rule in _RULES for finding in guarded(rule.__name__.strip("_"), rule, service)
    ]


def _given(group: Group) -> dict[str, str]:
    return dict(group.spec.get("rayStartParams") or {})


def _parameters(service: Document) -> Iterator[Finding]:
    """`ray start` ends at once with "no such option", and its pod with it."""
    for group in groups_of(service):
        for name in sorted(_given(group).keys() - PARAMETERS):
            near = difflib.get_close_matches(name, sorted(PARAMETERS), n=1)
            meant = f", did you mean {near[0]!r}?" if near else ""
            yield Finding(
                rule="start-parameter",
                path=f"{group.path}/rayStartParams/{name}",
                message=f"{name!r} is no parameter of `ray start`{meant} The pod would end at its "
                f"start; allowed: {', '.join(sorted(PARAMETERS))}",
            )


def _ports(service: Document) -> Iterator[Finding]:
    """Ray listens where the parameters say, the operator asks where the container's ports say."""
    for group in groups_of(service):
        given = _given(group)
        named = {
            each.get("name"): each.get("containerPort")
            for each in group.container.get("ports") or []
        }
        wanted = {"metrics-export-port": named.get("metrics", _METRICS_PORT)}
        if group.is_head:
            wanted |= {key: named.get(name, usual) for key, (name, usual) in _PORTS.items()}
        for name, port in wanted.items():
            if str(given.get(name, port)) != str(port):
                yield Finding(
                    rule="start-port",
                    path=f"{group.path}/rayStartParams/{name}",
                    message=f"{name} {given[name]!r}, and everybody asks the container's port "
                    f"{port}; allowed: {port}, or a port of that name with the same number",
                )
        host = given.get("dashboard-host")
        if group.is_head and host in ("127.0.0.1", "localhost", "::1"):
            yield Finding(
                rule="start-port",
                path=f"{group.path}/rayStartParams/dashboard-host",
                message=f"dashboard-host {host!r}: the operator reaches no dashboard and submits "
                "no Serve config; allowed: 0.0.0.0",
            )
        yield from _range(group, given)


def _range(group: Group, given: dict[str, str]) -> Iterator[Finding]:
    """A worker process of Ray may be there before the door."""
    first, last = given.get("min-worker-port"), given.get("max-worker-port")
    if not (str(first).isdecimal() and str(last).isdecimal()):
        return
    taken = sorted(
        int(each["containerPort"])
        for each in group.container.get("ports") or []
        if isinstance(each.get("containerPort"), int)
        and int(str(first)) <= each["containerPort"] <= int(str(last))
    )
    if taken:
        yield Finding(
            rule="start-port",
            path=f"{group.path}/rayStartParams/min-worker-port",
            message=f"Ray's processes may take any of {first} to {last}, and with it "
            f"{', '.join(map(str, taken))} of the container; allowed: a range without them",
        )


def _gpus(service: Document) -> Iterator[Finding]:
    for group in groups_of(service):
        told = _given(group).get("num-gpus")
        resources = group.container.get("resources") or {}
        there = (resources.get("limits") or {}).get(_GPU, 0)
        if is_quantity(told) and is_quantity(there) and quantity(told) > quantity(there):
            yield Finding(
                rule="start-gpus",
                path=f"{group.path}/rayStartParams/num-gpus",
                message=f"num-gpus {told!r} and a limit of {there} {_GPU}: Ray would put models on "
                f"GPUs that the pod has not; allowed: at most {there}, or left out",
            )


def _unknown_variables(service: Document) -> Iterator[Finding]:
    """A slip in `SQUADRON_API_KEYS` would leave the doors open to everybody."""
    for group in groups_of(service):
        for name in group.env():
            near = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.85)
            if name.startswith("SQUADRON_") and name not in VARIABLES and near:
                yield Finding(
                    rule="env-unknown",
                    path=f"{group.path}/template/spec/containers/0/env",
                    message=f"{name} is read by nobody, did you mean {near[0]}? Allowed: "
                    f"{', '.join(VARIABLES)}",
                )


def _alike(service: Document) -> Iterator[Finding]:
    """Serve reads its variables in every process of the cluster when it starts, the head's
    controller and the doors on workers alike. Of doors on nodes `doors` speaks."""
    groups = [group for group in groups_of(service) if group.container]
    names = {name for group in groups for name in group.env() if name.startswith(_ALIKE)}
    for name in sorted(names - {NODES_VARIABLE}):
        values = {group.name: _value(group, name) for group in groups}
        if len(set(values.values())) > 1 and not any(g.container.get("envFrom") for g in groups):
            told = ", ".join(f"{group}: {value}" for group, value in values.items())
            yield Finding(
                rule="env-differs",
                path="/spec/rayClusterConfig",
                message=f"{name} is not the same everywhere ({told}): head and workers would act "
                "on different settings; allowed: one value on the head and all workers",
            )


def _value(group: Group, name: str) -> str:
    if name not in group.env():
        return "none"
    return repr(group.env()[name])


def _fast_ingress(service: Document) -> Iterator[Finding]:
    """Serve's HAProxy binds more than the config's host: its statistics (8404) and metrics (9101)
    are on all interfaces, without a key. Seen with Ray 2.60 and `host: 127.0.0.1`."""
    for group in groups_of(service):
        for name in FAST_INGRESS:
            if group.env().get(name) in ("1", "true", "True"):
                yield Finding(
                    rule="fast-ingress",
                    path=f"{group.path}/template/spec/containers/0/env",
                    message=f"{name}: Serve's HAProxy shows statistics (8404) and metrics (9101) "
                    "on all interfaces and opens 30000 and 40000 upwards, and a door's drain is "
                    "cut to seconds; allowed: left out, the doors listen themselves",
                    severity="warning",
                )


_RULES: tuple[Callable[[Document], Iterator[Finding]], ...] = (
    _parameters,
    _ports,
    _gpus,
    _unknown_variables,
    _alike,
    _fast_ingress,
)
