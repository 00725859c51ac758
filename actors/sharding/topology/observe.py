"""`python -m actors.sharding.topology.observe`: a running Ray cluster as a topology file.

`squadron plan --topology ray` asks it. One JSON object on standard output.
"""

from __future__ import annotations

import argparse
import json
import logging
import socket
import sys
from itertools import combinations
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.sharding.topology.link_speed import LinkEnd
from actors.sharding.topology.probe import NodeProbe, probe
from cluster.config.planning.topology import TopologyFile
from cluster.placement.estimates.devices import GIB, core_speed, gpu_speed

ACCELERATOR = "ray.io/accelerator-type"
MAX_PAIRS = 28
"""Of nodes whose link is measured; beyond it each node's link to the first one."""


def observed(*, measure: bool, is_free_only: bool = False) -> TopologyFile:
    """The nodes of the Ray that this process is in; without one, this machine.

    Speeds and links are measured when asked for, else a processor's and a card's usual ones.
    `is_free_only`: without the GPUs that are reserved at the moment.
    """
    if not ray.is_initialized():
        return TopologyFile.model_validate({"nodes": [_node("here", probe(measure=measure))]})
    nodes = {_name(node): node for node in ray.nodes() if node["Alive"]}
    if is_free_only:
        free = available_resources_per_node()
        nodes = {name: _without_taken(node, free) for name, node in nodes.items()}
    told: dict[str, Any] = {
        "nodes": [
            {**_node(name, _probed(node, measure=measure)), "labels": _labels(node)}
            for name, node in nodes.items()
        ]
    }
    if measure:
        for each in told["nodes"]:
            each["link"] = _link(nodes[each["name"]], nodes[each["name"]])
        told["links"] = [
            {"between": [one, other], **_link(nodes[one], nodes[other])}
            for one, other in _pairs(list(nodes))
        ]
        if told["links"]:
            slowest = min(told["links"], key=lambda link: link["gb_per_s"])
            told["network"] = {k: v for k, v in slowest.items() if k != "between"}
    return TopologyFile.model_validate(told)


def _node(name: str, found: NodeProbe) -> dict[str, Any]:
    if found.gpus:
        product, memory_bytes = found.gpus[0]
        flops, moved = gpu_speed(product)
        kind, count = "cuda", len(found.gpus)
    else:
        nominal = core_speed()
        flops = found.flops_per_s or nominal[0]
        moved = found.memory_bytes_per_s or nominal[1]
        kind, count = "cpu", max(1, found.cores)
        memory_bytes = found.memory_bytes // count
    devices = {
        "kind": kind,
        "count": count,
        "memory_gib": memory_bytes / GIB,
        "tflops": flops / 1e12,
        "memory_gb_per_s": moved / 1e9,
    }
    return {"name": name, "devices": devices}


def _labels(node: dict[str, Any]) -> dict[str, str]:
    """The kind of GPU, by which a replica finds the same one on another node."""
    found = node.get("Labels", {}).get(ACCELERATOR)
    return {ACCELERATOR: found} if found and node["Resources"].get("GPU") else {}


def _without_taken(node: dict[str, Any], free: dict[str, dict[str, float]]) -> dict[str, Any]:
    gpus = int(free.get(node["NodeID"], {}).get("GPU", 0))
    return {**node, "Resources": {**node["Resources"], "GPU": gpus}}


def _probed(node: dict[str, Any], *, measure: bool) -> NodeProbe:
    """Ray's word on what may be used of the node; its own process's on the rest."""
    resources = node["Resources"]
    cores, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    memory_bytes = int(resources.get("memory", 0))
    if not measure and not gpus and memory_bytes:
        return NodeProbe(cores=cores, memory_bytes=memory_bytes)
    task: Any = ray.remote(_probe).options(num_cpus=0, scheduling_strategy=_on(node))
    found: NodeProbe = ray.get(task.remote(measure))
    return NodeProbe(
        cores=cores,
        memory_bytes=memory_bytes or found.memory_bytes,
        gpus=found.gpus[:gpus],
        flops_per_s=found.flops_per_s,
        memory_bytes_per_s=found.memory_bytes_per_s,
    )


def _probe(measure: bool) -> NodeProbe:
    return probe(measure=measure)


def _link(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    host = other["NodeManagerAddress"]
    end: Any = ray.remote(LinkEnd)
    listening = end.options(num_cpus=0, scheduling_strategy=_on(other)).remote()
    measuring = end.options(num_cpus=0, scheduling_strategy=_on(one)).remote()
    port = ray.get(listening.listen.remote(host))
    latency_s, bytes_per_s = ray.get(measuring.measure.remote(host, port))
    for actor in (listening, measuring):
        ray.kill(actor)
    return {"gb_per_s": bytes_per_s / 1e9, "latency_us": latency_s * 1e6, "measured": True}


def _pairs(names: list[str]) -> list[tuple[str, str]]:
    every = list(combinations(names, 2))
    return every if len(every) <= MAX_PAIRS else [(names[0], name) for name in names[1:]]


def _on(node: dict[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def _name(node: dict[str, Any]) -> str:
    """Several nodes may be on one machine."""
    return f"{node['NodeManagerHostname']}-{node['NodeID'][:6]}"


def _check_address(address: str) -> None:
    """Ray itself tries for minutes where nothing listens."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        sys.exit(f"nothing answers at {address}: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="auto")
    parser.add_argument("--no-measure", action="store_true")
    given = parser.parse_args()
    _check_address(given.address)
    ray.init(address=given.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        found = observed(measure=not given.no_measure)
    finally:
        ray.shutdown()
    print(json.dumps(found.model_dump(mode="json", exclude_unset=True)))


if __name__ == "__main__":
    main()
