"""Whether the replicas that a config asks for fit into the groups that a manifest allows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from cluster.config.server import NODES_VARIABLE
from cluster.config.squadron import SquadronConfig
from cluster.errors import ConfigError
from cluster.kubernetes.duration import DELETION_DELAY_DEFAULT_S, SHUTDOWN_MARGIN_S
from cluster.kubernetes.finding import Document, Finding, Group, groups_of
from cluster.kubernetes.pods.quantity import is_quantity, quantity
from cluster.kubernetes.policy_rules import DRAIN_DEFAULT_S, DRAIN_VARIABLE
from cluster.kubernetes.serve.needs import (
    Bundle,
    Need,
    configs_in,
    door_needs,
    largest_loads,
    variant_need,
)

PATH = "/spec/serveConfigV2"
_ROUNDING = 1e-6


@dataclass(slots=True, kw_only=True)
class _Node:
    """What is left of a pod."""

    cpus: float
    gpus: float
    memory_bytes: float
    labels: dict[str, str] = field(default_factory=dict)

    def holds(self, bundle: Bundle) -> bool:
        return (
            self.cpus + _ROUNDING >= bundle.cpus
            and self.gpus + _ROUNDING >= bundle.gpus
            and self.memory_bytes + _ROUNDING >= bundle.memory_bytes
            and self._has(bundle)
        )

    def _has(self, bundle: Bundle) -> bool:
        """Labels that Ray gives a node by itself (`ray.io/...`) are not known here."""
        return all(
            self.labels.get(key) == value
            for key, value in bundle.labels.items()
            if not key.startswith("ray.io/")
        )

    def take(self, bundle: Bundle, sign: int = 1) -> None:
        self.cpus -= sign * bundle.cpus
        self.gpus -= sign * bundle.gpus
        self.memory_bytes -= sign * bundle.memory_bytes


def check_fit(service: Document) -> list[Finding]:
    """Of one RayService: each replica packed into pods, largest first, at the largest number that
    autoscaling may ask for. First fit may miss a packing that exists; it invents none."""
    text = str((service.get("spec") or {}).get("serveConfigV2") or "")
    try:
        configs = configs_in(text)
    except ConfigError as error:
        return [Finding(rule="serve-config", path=PATH, message=error.message)]
    except (AttributeError, yaml.YAMLError):
        return []  # the schema's layer has the words for it
    found = [*_doors(service, configs), *_longest_request(service, configs)]
    told: set[str] = set()
    for load in _loads(service, configs):
        free = [_offer(group) for group in groups_of(service) for _ in range(group.replicas)]
        order = sorted(load, key=lambda n: (n.gpus, n.cpus, n.memory_bytes), reverse=True)
        for need in order:
            placed = sum(_place(need, free) for _ in range(need.count))
            if placed < need.count and need.name not in told:
                told.add(need.name)
                found.append(_short(need, placed, service))
    return found


def _short(need: Need, placed: int, service: Document) -> Finding:
    offered = [
        f"{group.replicas} of {group.name} ({_told(_offer(group))})" for group in groups_of(service)
    ]
    return Finding(
        rule="resource-fit",
        path=PATH,
        message=f"{need.name}: {placed} of {need.count} replicas fit ({need}) into "
        f"{', '.join(offered)}; raise maxReplicas or the limits, or ask for less",
    )


def _told(node: _Node) -> str:
    return str(Bundle(cpus=node.cpus, gpus=node.gpus, memory_bytes=node.memory_bytes))


def _loads(service: Document, configs: list[SquadronConfig]) -> Iterator[list[Need]]:
    has_gpus = any(_offer(group).gpus > 0 for group in groups_of(service))
    for config in configs:
        doors = door_needs(config, _door_nodes(service, config))
        for counts in largest_loads(config):
            yield [
                doors,
                *(
                    variant_need(name, variant, counts[name], has_gpus=has_gpus)
                    for name, variant in config.variants.items()
                ),
            ]


def _door_nodes(service: Document, config: SquadronConfig) -> int:
    told = {group.env().get(NODES_VARIABLE, "") for group in groups_of(service)}
    value = told.pop() if len(told) == 1 else ""
    return int(value) if value.isdecimal() else config.server.nodes


def _doors(service: Document, configs: list[SquadronConfig]) -> Iterator[Finding]:
    """A worker without a door never becomes Ready: KubeRay's probe asks the door's port."""
    workers = [group for group in groups_of(service) if not group.is_head]
    num_workers = sum(
        int(group.spec.get("replicas") or group.spec.get("minReplicas") or 0) * group.num_hosts
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
    for config in configs:
        nodes = _door_nodes(service, config)
        if nodes < num_workers:
            yield Finding(
                rule="doors",
                path=PATH,
                message=f"doors on {nodes} of {num_workers} workers: the others never become Ready "
                f"(the probe asks the door); set server.nodes, or {NODES_VARIABLE} on the head and "
                "all workers",
            )
        most = sum(group.replicas * group.num_hosts for group in workers)
        if nodes > most:
            yield Finding(
                rule="doors",
                path=PATH,
                message=f"doors on {nodes} nodes, and there are never more than {most} workers: "
                "the doors' deployment is never whole, and the RayService never Ready; allowed: at "
                f"most {most} (server.nodes or {NODES_VARIABLE})",
            )


def _longest_request(service: Document, configs: list[SquadronConfig]) -> Iterator[Finding]:
    """What is under way when a pod or a whole cluster goes must be able to end."""
    longest_s = max((each.server.limits.default_timeout_s for each in configs), default=0.0)
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
    if 0 <= delay_s < longest_s:
        yield Finding(
            rule="deletion-delay",
            path="/spec/rayClusterDeletionDelaySeconds",
            message=f"{delay_s:g} s is less than the longest request ({longest_s:g} s): an upgrade "
            "cuts it off",
        )


def _offer(group: Group) -> _Node:
    """What Ray sees in one pod of a group: its start parameters or `resources`, else the limits."""
    given = {**_renamed(group.spec.get("resources")), **(group.spec.get("rayStartParams") or {})}
    resources = group.container.get("resources") or {}
    limits = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    return _Node(
        cpus=_amount(given.get("num-cpus", limits.get("cpu", 0))),
        gpus=_amount(given.get("num-gpus", limits.get("nvidia.com/gpu", 0))),
        memory_bytes=_amount(given.get("memory", limits.get("memory", math.inf))),
        labels={str(key): str(value) for key, value in (group.spec.get("labels") or {}).items()},
    )


def _amount(text: object) -> float:
    """What is no quantity has a finding of its own, and limits nothing here."""
    return quantity(text) if is_quantity(text) else math.inf


def _renamed(resources: object) -> dict[str, object]:
    """A group's `resources` in the names of start parameters."""
    names = {"CPU": "num-cpus", "GPU": "num-gpus", "memory": "memory"}
    given = resources if isinstance(resources, dict) else {}
    return {names[key]: value for key, value in given.items() if key in names}


def _place(need: Need, free: list[_Node]) -> bool:
    """One replica, all of its bundles or none."""
    if need.strategy in ("PACK", "STRICT_PACK"):
        for node in free:
            if _put(need.bundles, [node], is_apart=False):
                return True
        if need.strategy == "STRICT_PACK":
            return False
    if need.strategy == "STRICT_SPREAD":
        return _put(need.bundles, free, is_apart=True)
    return _put(need.bundles, free, is_apart=False)


def _put(bundles: tuple[Bundle, ...], nodes: list[_Node], *, is_apart: bool) -> bool:
    taken: list[tuple[_Node, Bundle]] = []
    for bundle in sorted(bundles, key=lambda b: (b.gpus, b.cpus, b.memory_bytes), reverse=True):
        used = {id(node) for node, _ in taken} if is_apart else set()
        for node in nodes:
            if id(node) not in used and node.holds(bundle):
                node.take(bundle)
                taken.append((node, bundle))
                break
        else:
            for node, one in taken:
                node.take(one, -1)
            return False
    return True
