"""Whether the replicas that a config asks for fit into the groups that a manifest allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from cluster.config.serve_file import IMPORT_PATH
from cluster.config.server import NODES_VARIABLE
from cluster.config.squadron import SquadronConfig
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError
from cluster.kubernetes.duration import DELETION_DELAY_DEFAULT_S, SHUTDOWN_MARGIN_S
from cluster.kubernetes.finding import Document, Finding, Group, groups_of
from cluster.kubernetes.policy_rules import DRAIN_DEFAULT_S, DRAIN_VARIABLE
from cluster.kubernetes.quantity import quantity

DOOR_CPUS = 0.1
PATH = "/spec/serveConfigV2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one replica reserves, and how many there are."""

    name: str
    cpus: float
    gpus: float
    count: int


def check_fit(service: Document) -> list[Finding]:
    """Of one RayService: each replica packed into a pod, largest first."""
    text = (service.get("spec") or {}).get("serveConfigV2") or ""
    try:
        needs = needs_of(text)
    except (ConfigError, yaml.YAMLError) as error:
        return [Finding(rule="serve-config", path=PATH, message=str(error))]
    found = [*_doors(service, text), *_longest_request(service, text)]
    free = [list(_offer(group)) for group in groups_of(service) for _ in range(group.replicas)]
    for need in sorted(needs, key=lambda each: (each.gpus, each.cpus), reverse=True):
        placed = sum(_place(need, free) for _ in range(need.count))
        if placed < need.count:
            found.append(
                Finding(
                    rule="resource-fit",
                    path=PATH,
                    message=f"{need.name}: {placed} of {need.count} replicas fit (each "
                    f"{need.cpus:g} CPU, {need.gpus:g} GPU); raise maxReplicas or the limits",
                )
            )
    return found


def _doors(service: Document, text: str) -> Iterator[Finding]:
    """A worker without a door never becomes Ready: KubeRay's probe asks the door's port."""
    workers = [group for group in groups_of(service) if not group.is_head]
    num_workers = sum(
        int(group.spec.get("replicas") or group.spec.get("minReplicas") or 0)
        * int(group.spec.get("numOfHosts") or 1)
        for group in workers
    )
    told = {group.env().get(NODES_VARIABLE, "") for group in groups_of(service)}
    if len(told) > 1:
        yield Finding(
            rule="doors",
            path="/spec/rayClusterConfig",
            message=f"{NODES_VARIABLE} must be the same on the head and all workers, got "
            f"{', '.join(sorted(repr(each) for each in told))}",
        )
        return
    (value,) = told or {""}
    for config in _configs(text):
        nodes = int(value) if value.isdecimal() else config.server.nodes
        if nodes < num_workers:
            yield Finding(
                rule="doors",
                path=PATH,
                message=f"doors on {nodes} of {num_workers} workers: the others never become Ready "
                f"(the probe asks the door); set server.nodes, or {NODES_VARIABLE} on the head and "
                "all workers",
            )


def _longest_request(service: Document, text: str) -> Iterator[Finding]:
    """What is under way when a pod or a whole cluster goes must be able to end."""
    longest_s = max((each.server.limits.default_timeout_s for each in _configs(text)), default=0.0)
    for group in groups_of(service):
        drain_s = float(group.env().get(DRAIN_VARIABLE) or DRAIN_DEFAULT_S)
        if group.pod.get("containers") and drain_s < longest_s + SHUTDOWN_MARGIN_S:
            yield Finding(
                rule="drain-requests",
                path=f"{group.path}/template/spec/containers/0/env",
                message=f"{DRAIN_VARIABLE} {drain_s:g} is less than the longest request and "
                f"{SHUTDOWN_MARGIN_S:g} s (server.limits.default_timeout_s {longest_s:g}): it is "
                "cut off",
            )
    delay_s = (service.get("spec") or {}).get("rayClusterDeletionDelaySeconds")
    delay_s = float(DELETION_DELAY_DEFAULT_S if delay_s is None else delay_s)
    if delay_s < longest_s:
        yield Finding(
            rule="deletion-delay",
            path="/spec/rayClusterDeletionDelaySeconds",
            message=f"{delay_s:g} s is less than the longest request ({longest_s:g} s): an upgrade "
            "cuts it off",
        )


def _configs(text: str) -> list[SquadronConfig]:
    return [
        check_section(app.get("args") or {}, SquadronConfig, source="serveConfigV2")
        for app in (yaml.safe_load(text) or {}).get("applications") or []
        if app.get("import_path") == IMPORT_PATH
    ]


def needs_of(text: str) -> list[Need]:
    """Raises: ConfigError for a config that Squadron would refuse."""
    needs: list[Need] = []
    for config in _configs(text):
        needs.append(
            Need(
                name="gateway",
                cpus=DOOR_CPUS,
                gpus=0.0,
                count=config.server.doors_per_node * config.server.nodes,
            )
        )
        for name, variant in config.variants.items():
            resources = variant.resources
            needs.append(
                Need(
                    name=name,
                    cpus=float(resources.num_cpus),
                    gpus=_gpus(resources.num_gpus, variant.device),
                    count=variant.replicas,
                )
            )
    return needs


def _gpus(reserved: float | None, device: str) -> float:
    """What is written, else a whole one for a model that is bound to a GPU."""
    if reserved is not None:
        return reserved
    return 1.0 if device.startswith("cuda") else 0.0


def _offer(group: Group) -> tuple[float, float]:
    """CPUs and GPUs that Ray sees in one pod of a group: its start parameters, else the limits."""
    given = group.spec.get("rayStartParams") or {}
    resources = group.container.get("resources") or {}
    limits = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    cpus = float(given["num-cpus"]) if "num-cpus" in given else quantity(limits.get("cpu", 0))
    gpus = (
        float(given["num-gpus"]) if "num-gpus" in given else float(limits.get("nvidia.com/gpu", 0))
    )
    return cpus, gpus


def _place(need: Need, free: list[list[float]]) -> bool:
    for node in free:
        if node[0] >= need.cpus and node[1] >= need.gpus:
            node[0] -= need.cpus
            node[1] -= need.gpus
            return True
    return False
