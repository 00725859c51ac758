"""What is planned, and what is written by hand, is what is reserved."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from cluster.config.placement import PlacementConfig
from cluster.errors import ConfigError
from cluster.placement.partition import LayeredModel, lay_out
from cluster.placement.reservation import Bundle, Reservation, reserve
from cluster.placement.search.find_plan import find_plan
from cluster.placement.search.plan import Plan, PlannedReplica
from cluster.simulation.cluster.fast import FastSimulator
from tests.cluster.placement.search.making import cluster, demand, model
from tests.cluster.placement.test_automatic import simulate

LAYERS = 4


def reserved(**section: Any) -> Reservation:
    config = PlacementConfig.model_validate(section)
    told = LayeredModel(
        num_layers=LAYERS,
        layer_bytes=(1,) * LAYERS,
        layer_cost=(1.0,) * LAYERS,
        splits=(("heads", 8),),
    )
    return reserve(lay_out(config, told), config)


def planned(num_nodes: int, devices: int, *, gib: float, shape: str, **labels: str) -> Plan:
    demands = (demand(facts=model(gib=gib, num_layers=LAYERS)),)
    topology = cluster(num_nodes, devices)
    nodes = tuple(replace(n, labels=tuple(labels.items())) for n in topology.nodes)
    evaluate: FastSimulator = simulate(demands)
    found = find_plan(
        replace(topology, nodes=nodes),
        demands,
        evaluate,
        is_allowed=lambda layout: str(layout.groups[0].degrees) == shape,
    )
    assert isinstance(found, Plan)
    return found


def one(plan: Plan) -> PlannedReplica:
    return plan.replicas[0]


@pytest.mark.parametrize(
    ("num_nodes", "devices", "shape"),
    [
        (2, 2, "pipeline 2 x tensor 2"),
        (2, 2, "pipeline 4"),
        (4, 1, "pipeline 4"),
        (2, 2, "tensor 2"),
        (1, 4, "tensor 4"),
        (1, 4, "pipeline 2 x tensor 2"),
    ],
)
def test_the_section_of_a_plan_reserves_the_planned_gpus_of_each_planned_node(
    num_nodes: int, devices: int, shape: str
) -> None:
    replica = one(planned(num_nodes, devices, gib=20.0, shape=shape))

    found = reserved(**replica.section())

    wanted = Counter(shard.site.node for shard in replica.shards)
    assert sorted(bundle.num_gpus for bundle in found.bundles if bundle.ranks) == sorted(
        wanted.values()
    )
    for bundle in found.bundles:
        assert len({replica.shards[rank].site.node for rank in bundle.ranks}) <= 1
    assert found.gpu_shares == (1.0,) * len(replica.shards)


def test_two_nodes_with_two_gpus_each_are_two_bundles_apart() -> None:
    replica = one(planned(2, 2, gib=40.0, shape="pipeline 2 x tensor 2"))

    section = replica.section()

    assert section == {
        "strategy": "pipeline",
        "tensor": 2,
        "shard_map": {
            "layers.0-1": {"node": "node0", "devices": ["cuda:0", "cuda:1"]},
            "layers.2-3": {"node": "node1", "devices": ["cuda:0", "cuda:1"]},
        },
    }
    assert reserved(**section) == Reservation(
        bundles=(
            Bundle(ranks=(0, 1), num_cpus=0.2, num_gpus=2, has_replica=True),
            Bundle(ranks=(2, 3), num_cpus=0.2, num_gpus=2),
        ),
        strategy="STRICT_SPREAD",
        gpu_shares=(1.0, 1.0, 1.0, 1.0),
    )


def test_the_labels_of_planned_nodes_are_asked_for() -> None:
    replica = one(planned(2, 2, gib=40.0, shape="pipeline 4", card="H200"))

    found = reserved(**replica.section())

    assert [bundle.labels for bundle in found.bundles] == [{"card": "H200"}] * 2


def test_slices_of_a_stage_are_one_bundle_and_stages_may_be_apart() -> None:
    devices = [f"cuda:{index}" for index in range(4)]

    found = reserved(strategy="pipeline", shards=4, tensor=2, devices=devices)

    assert [(b.ranks, b.num_gpus, b.has_replica) for b in found.bundles] == [
        ((), 0, True),
        ((0, 1), 2, False),
        ((2, 3), 2, False),
    ]
    assert found.strategy == "PACK"
    assert [found.bundle_of(rank) for rank in range(4)] == [1, 1, 2, 2]


@pytest.mark.parametrize("bundles", ["SPREAD", "STRICT_SPREAD"])
def test_spreading_means_stages_never_slices(bundles: str) -> None:
    found = reserved(strategy="pipeline", shards=4, tensor=2, bundles=bundles)

    assert [bundle.ranks for bundle in found.bundles] == [(), (0, 1), (2, 3)]
    assert found.strategy == bundles


def test_stages_that_share_a_gpu_share_a_bundle_with_that_one_gpu() -> None:
    found = reserved(shard_map={"layers.0-1": "cuda:0", "layers.2": "cuda:0", "layers.3": "cuda:1"})

    assert [(b.ranks, b.num_gpus) for b in found.bundles] == [((), 0), ((0, 1), 1), ((2,), 1)]
    assert found.gpu_shares == (0.5, 0.5, 1.0)


def test_three_shares_of_a_gpu_fit_into_it() -> None:
    found = reserved(strategy="layer", shards=3, devices=["cuda:0"] * 3)

    assert sum(found.gpu_shares) <= 1.0
    assert [bundle.num_gpus for bundle in found.bundles] == [0, 1]


def test_gpu_0_of_two_nodes_is_two_gpus() -> None:
    by_name = reserved(shard_map={"layers.0-1": "a/cuda:0", "layers.2-3": "b/cuda:0"})
    by_label = reserved(
        shard_map={
            "layers.0-1": {"device": "cuda:0", "labels": {"zone": "a"}},
            "layers.2-3": {"device": "cuda:0", "labels": {"zone": "b"}},
        }
    )

    for found in (by_name, by_label):
        assert [b.num_gpus for b in found.bundles if b.ranks] == [1, 1]
        assert found.gpu_shares == (1.0, 1.0)
    assert [b.labels for b in by_label.bundles] == [{}, {"zone": "a"}, {"zone": "b"}]


def test_labels_of_a_named_node_are_said_once() -> None:
    found = reserved(
        strategy="pipeline",
        shards=2,
        devices=["a/cuda:0", "b/cuda:0"],
        nodes={"b": {"zone": "east"}},
    )

    assert [bundle.labels for bundle in found.bundles] == [{}, {"zone": "east"}]


def test_shards_that_share_a_node_cannot_ask_for_two_kinds_of_it() -> None:
    with pytest.raises(ConfigError, match="asks for a node with the label zone: b"):
        reserved(
            shard_map={
                "layers.0-1": {"node": "n", "labels": {"zone": "a"}},
                "layers.2-3": {"node": "n", "labels": {"zone": "b"}},
            }
        )


def test_slices_of_a_stage_on_two_nodes_are_refused_naming_layers_and_devices() -> None:
    with pytest.raises(ConfigError, match="layers 0 to 3: their 2 slices are on a/cuda:0, b/cuda"):
        reserved(strategy="tensor", shards=2, devices=["a/cuda:0", "b/cuda:0"])
