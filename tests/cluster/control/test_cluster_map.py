from __future__ import annotations

from typing import Any

from cluster.config.variant import BatchingConfig
from cluster.control.cluster_map import ActorSeen, NodeSeen, ReplicaSeen, cluster_map
from cluster.models import ShardFacts
from cluster.routing.table import RoutingTable, VariantFacts, VariantRoute
from cluster.tensors import Signature


def route(name: str, **facts: Any) -> VariantRoute:
    return VariantRoute(
        name=name,
        deployment=f"variant-{name}",
        facts=VariantFacts(
            version="1",
            platform="p",
            backend="b",
            signature=Signature(inputs=(), outputs=()),
            is_batched=True,
            **facts,
        ),
        batching=BatchingConfig(),
        num_replicas=1,
        is_optional=False,
    )


def shard(rank: int) -> ShardFacts:
    return ShardFacts(
        rank=rank,
        stage=rank,
        device=f"cuda:{rank}",
        first_layer=6 * rank,
        last_layer=6 * rank + 5,
        weight_bytes=1000 + rank,
    )


TABLE = RoutingTable(
    version=1,
    routes={
        "a": route("a"),
        "inside": route("inside", is_colocated=True),
        "cut:up": route("cut:up", shards=(shard(0), shard(1))),
    },
)
HEAD = NodeSeen(node_id="n1", address="10.0.0.2", is_alive=True, num_cpus=8, is_head=True)
OTHER = NodeSeen(
    node_id="n0", address="10.0.0.1", is_alive=True, num_cpus=4, num_gpus=2, accelerator="H200"
)
DEAD = NodeSeen(node_id="n2", address="10.0.0.3", is_alive=False, num_cpus=4)


def replica(node: str, deployment: str, name: str, **more: Any) -> ReplicaSeen:
    return ReplicaSeen(
        node_id=node, deployment=deployment, replica=name, state="RUNNING", pid=7, **more
    )


def test_every_process_is_on_its_node_doors_first_and_shards_behind_their_replica() -> None:
    found = cluster_map(
        TABLE,
        [OTHER, DEAD, HEAD],
        [
            replica("n1", "variant-cut:up", "x1"),
            replica("n0", "variant-a", "y1", num_gpus=0.5, gpus=(1,)),
            replica("n1", "gateway", "d1"),
            replica("n2", "variant-a", "gone"),
        ],
        [
            ActorSeen(node_id="n0", name="squadron:cut:up:x1:shard1", pid=21, gpus=(0,)),
            ActorSeen(node_id="n1", name="squadron:cut:up:x1:shard0", pid=20),
            ActorSeen(node_id="n1", name="squadron:cut:up:earlier:shard0", pid=19),
            ActorSeen(node_id="n1", name="squadron-controller:app", pid=3),
        ],
    )

    head, other = found
    assert (head["address"], head["is_head"], head["num_cpus"]) == ("10.0.0.2", True, 8)
    door, leader, first = head["processes"]  # type: ignore[misc]  # of a JSON list
    assert (door["kind"], door["holds"]) == ("door", ["inside"])
    assert (leader["kind"], leader["variant"], leader["num_shards"]) == ("replica", "cut:up", 2)
    assert (first["rank"], first["first_layer"], first["last_layer"]) == (0, 0, 5)
    alone, second = other["processes"]  # type: ignore[misc]
    assert (alone["variant"], alone["device"], alone["num_gpus"]) == ("a", "gpu", 0.5)
    # The plan's number is not the node's: Ray chose.
    assert (alone["gpus"], second["gpus"], other["accelerator"]) == ([1], [0], "H200")
    assert "gpus" not in first
    assert (second["pid"], second["device"], second["weight_bytes"]) == (21, "cuda:1", 1001)


def test_what_the_table_does_not_know_is_told_as_it_was_seen() -> None:
    (node,) = cluster_map(
        TABLE,
        [HEAD],
        [replica("n1", "variant-new", "z1")],
        [ActorSeen(node_id="n1", name="squadron:new:z1:shard0", pid=5)],
    )

    assert [(p["kind"], p["variant"]) for p in node["processes"]] == [  # type: ignore[attr-defined]
        ("shard", "new"),
        ("replica", "variant-new"),
    ]
