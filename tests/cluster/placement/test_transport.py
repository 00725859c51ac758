from __future__ import annotations

from typing import Any

import pytest

from cluster.config.placement import PlacementConfig
from cluster.errors import ConfigError
from cluster.placement.partition import LayeredModel, lay_out
from cluster.placement.transport import LEADER, Talk, choose_talk

LAYERS = 4


def talk(nodes: str, **section: Any) -> Talk:
    """`nodes`: a letter for the node of each shard; the replica is on `a`."""
    config = PlacementConfig.model_validate(section)
    model = LayeredModel(num_layers=LAYERS, layer_bytes=(1,) * LAYERS, layer_cost=(1.0,) * LAYERS)
    return choose_talk(
        lay_out(config, model),
        config.transport,
        is_here=lambda rank: nodes[rank] == "a",
        is_same_node=lambda one, other: nodes[one] == nodes[other],
    )


def ways(found: Talk) -> dict[tuple[int, int], str]:
    return {(hop.source, hop.target): hop.way for hop in found.hops}


def test_processors_of_one_node_share_memory_and_need_no_group() -> None:
    found = talk("ab", strategy="layer", shards=2)

    assert ways(found) == {
        (LEADER, 0): "shared_memory",
        (0, 1): "tcp",
        (1, LEADER): "tcp",
    }
    assert found.world is None
    assert ways(talk("aa", strategy="layer", shards=2))[0, 1] == "shared_memory"


def test_gpu_0_of_two_nodes_is_joined_by_nccl() -> None:
    by_name = talk("ab", strategy="layer", shards=2, devices=["a/cuda:0", "b/cuda:0"])

    assert ways(by_name)[0, 1] == "nccl"
    assert (by_name.world, by_name.between) == ("nccl", "nccl")


def test_gpus_of_one_node_talk_by_nccl() -> None:
    found = talk("aaaa", strategy="pipeline", tensor=2, shards=4, devices=gpus(0, 1, 2, 3))

    assert {ways(found)[0, 2], ways(found)[1, 3]} == {"nccl"}
    assert (found.world, found.stages) == ("nccl", ("nccl", "nccl"))


def test_a_processor_in_the_group_takes_nccl_from_every_way_but_not_from_the_slices() -> None:
    devices = [*gpus(0, 1, 2, 3), "cpu", "cpu"]
    found = talk("aaaaaa", strategy="pipeline", tensor=2, shards=6, devices=devices)

    assert ways(found)[0, 2] == "shared_memory"
    assert ways(found)[2, 4] == "shared_memory"
    assert (found.world, found.stages) == ("gloo", ("nccl", "nccl", "gloo"))


def test_shards_that_share_a_gpu_have_no_nccl() -> None:
    found = talk("aa", strategy="layer", shards=2, devices=gpus(0, 0))

    assert ways(found)[0, 1] == "shared_memory"
    assert talk("aa", strategy="tensor", shards=2, devices=gpus(0, 0)).stages == ("gloo",)


def test_gloo_that_was_asked_for_is_what_activations_go_by_also_between_gpus() -> None:
    devices = gpus(0, 1, 2, 3)
    found = talk("aaaa", strategy="layer", tensor=2, shards=4, devices=devices, transport="gloo")

    assert ways(found)[0, 2] == "gloo"
    assert (found.between, found.stages) == ("gloo", ("nccl", "nccl"))


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (["cuda:0", "cpu"], "shard 0 on cuda:0 to shard 1 on cpu: NCCL moves tensors between GPUs"),
        (["cuda:1", "cuda:1"], "NCCL wants a GPU for each, and shards 0 and 1 share cuda:1"),
    ],
)
def test_nccl_where_it_cannot_be_is_refused_naming_shards_and_devices(
    devices: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        talk("aa", strategy="layer", shards=2, devices=devices, transport="nccl")


@pytest.mark.parametrize("way", ["shared_memory", "unix"])
def test_what_ends_at_the_node_is_refused_between_nodes(way: str) -> None:
    with pytest.raises(ConfigError, match="it ends at the node; allowed: auto, tcp, gloo"):
        talk("ab", strategy="layer", shards=2, transport=way)


def gpus(*indices: int) -> list[str]:
    return [f"cuda:{index}" for index in indices]
