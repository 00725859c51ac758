"""What a cluster cannot hold is refused at start, by layers and devices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.config.placement import PlacementConfig
from cluster.errors import ConfigError
from cluster.placement.capacity import (
    Ask,
    NodeRoom,
    asks_of,
    check_gpus_hold,
    check_there_is,
)
from cluster.placement.partition import LayeredModel, lay_out
from cluster.placement.reservation import reserve
from tests.cluster.placement.search.making import GIB, cluster

LAYERED = LayeredModel(
    num_layers=12, layer_bytes=(1,) * 12, layer_cost=(1.0,) * 12, splits=(("heads", 8),)
)


def node(name: str, *, gpus: float = 0, cpus: float = 8, **labels: str) -> NodeRoom:
    return NodeRoom(name=name, num_cpus=cpus, num_gpus=gpus, labels=labels)


def check(there: list[NodeRoom], **section: Any) -> None:
    config = PlacementConfig.model_validate(section)
    layout = lay_out(config, LAYERED)
    reserved = reserve(layout, config)
    check_there_is(asks_of(reserved, layout, 0.1), reserved.strategy, there, key="placement")


def test_a_shard_map_with_more_gpus_than_there_are_names_layers_and_device() -> None:
    map_ = {"layers.0-5": "cuda:0", "layers.6-11": "cuda:1"}

    check([node("a", gpus=2)], shard_map=map_)
    with pytest.raises(ConfigError) as caught:
        check([node("a", gpus=1)], shard_map=map_)

    assert caught.value.message == (
        "layers 6 to 11 on cuda:1 (shard 1): 1 GPU and 0.1 CPUs on one node: not left beside "
        "layers 0 to 5 on cuda:0 (shard 0); the cluster has 1 GPU (a 1), 8 CPUs on 1 node"
    )


def test_slices_of_a_stage_need_one_node_that_has_them_all() -> None:
    section = {"strategy": "tensor", "shards": 4, "devices": [f"cuda:{n}" for n in range(4)]}

    check([node("a", gpus=4)], **section)
    with pytest.raises(
        ConfigError, match=r"layers 0 to 11 on cuda:0.*\(shards 0, 1, 2, 3\): 4 GPUs"
    ):
        check([node("a", gpus=2), node("b", gpus=2)], **section)


def test_a_cluster_without_a_gpu_says_so() -> None:
    with pytest.raises(ConfigError, match=r"no node has as much; the cluster has no GPU, 8 CPUs"):
        check([node("a")], shard_map={"layers.0-11": "cuda:0"})


def test_stages_of_different_nodes_need_as_many_nodes() -> None:
    map_ = {"layers.0-5": "x/cpu", "layers.6-11": "y/cpu"}

    check([node("a"), node("b")], shard_map=map_)
    with pytest.raises(ConfigError, match=r"layers 6 to 11 on y/cpu.*each on a node of its own"):
        check([node("a")], shard_map=map_)


def test_a_label_that_no_node_carries_is_named() -> None:
    section = {
        "shard_map": {"layers.0-11": {"node": "x", "device": "cuda:0"}},
        "nodes": {"x": {"card": "H200"}},
    }

    check([node("a", gpus=1, card="H200")], **section)
    with pytest.raises(ConfigError, match=r"on one node, labelled card: H200: no node has as much"):
        check([node("a", gpus=1, card="T4")], **section)


def test_shards_that_share_a_gpu_ask_for_one() -> None:
    check([node("a", gpus=1)], shard_map={"layers.0-5": "cuda:0", "layers.6-11": "cuda:0"})


def test_more_shares_of_the_cores_than_there_are_are_refused() -> None:
    check([node("a", cpus=2)], strategy="layer", shards=2, num_cpus=0.9)
    with pytest.raises(ConfigError, match="layers 6 to 11 on cpu"):
        check([node("a", cpus=2)], strategy="layer", shards=2, num_cpus=1)


def test_an_order_in_which_everything_fits_is_found() -> None:
    """The best fit for the first one leaves no place for the last: another node does."""
    asks = [
        Ask(what="any", num_gpus=2),
        Ask(what="labelled", num_gpus=1, labels={"fast": "yes"}),
    ]

    check_there_is(asks, "PACK", [node("a", gpus=2, fast="yes"), node("b", gpus=2)], key="k")


def test_weights_that_no_gpu_holds_name_layers_and_device() -> None:
    large = replace(LAYERED, layer_bytes=(3 * GIB,) * 12)
    section = {"shard_map": {"layers.0-6": "cuda:0", "layers.7-11": "cuda:1"}}

    def hold(gib: float, **more: Any) -> None:
        config = PlacementConfig.model_validate({**section, **more})
        layout = lay_out(config, large)
        check_gpus_hold(layout, config.max_memory_mb, cluster(1, 2, gib=gib), key="placement")

    hold(24)
    with pytest.raises(ConfigError) as caught:
        hold(16)
    assert caught.value.message == (
        "layers 0 to 6 on cuda:0 (shard 0): 21.0 GiB of weights; the largest GPU there has room "
        "for 16.0 GiB"
    )
    hold(16, max_memory_mb=8192)  # The others are brought in for their turn.
    with pytest.raises(ConfigError, match=r"layers 0 to 3 on cuda:0 .* and layers 4 to 11"):
        hold(16, shard_map={"layers.0-3": "cuda:0", "layers.4-11": "cuda:0"})


def test_weights_that_no_nodes_memory_holds_name_layers_and_device() -> None:
    large = replace(LAYERED, layer_bytes=(3 * GIB,) * 12)

    def hold(*gib: float, strategy: str = "layer", **more: Any) -> None:
        config = PlacementConfig.model_validate({"strategy": strategy, "shards": 2, **more})
        layout = lay_out(config, large)
        reserved = reserve(layout, config)
        there = [replace(node(f"n{n}"), memory_bytes=each * GIB) for n, each in enumerate(gib)]
        asks = asks_of(reserved, layout, 0.1, max_memory_mb=config.max_memory_mb)
        check_there_is(asks, reserved.strategy, there, key="placement")

    hold(40)
    hold(20, 20)  # A stage on each.
    with pytest.raises(ConfigError) as caught:
        hold(24)
    assert caught.value.message == (
        "layers 6 to 11 on cpu (shard 1): 0.1 CPUs and 18.0 GiB of weights on one node: not left "
        "beside layers 0 to 5 on cpu (shard 0); the cluster has no GPU, 8 CPUs on 1 node with 24.0 "
        "GiB of memory"
    )
    assert "or max_memory_mb" in caught.value.details["allowed"]
    with pytest.raises(
        ConfigError, match=r"layers 0 to 5 on cpu \(shard 0\): .* no node has as mu"
    ):
        hold(16, 16)
    with pytest.raises(ConfigError, match=r"\(shards 0, 1\): .* 36\.0 GiB of weights on one node"):
        hold(20, 20, strategy="tensor")
    hold(16, max_memory_mb=7000)  # The others are brought in for their turn.


def test_weights_on_gpus_take_no_memory_of_their_node() -> None:
    large = replace(LAYERED, layer_bytes=(3 * GIB,) * 12)
    config = PlacementConfig.model_validate({"shard_map": {"layers.0-11": "cuda:0"}})
    layout = lay_out(config, large)
    reserved = reserve(layout, config)

    there = [replace(node("a", gpus=1), memory_bytes=GIB)]
    check_there_is(asks_of(reserved, layout, 0.1), reserved.strategy, there, key="placement")


def test_what_cannot_be_settled_quickly_is_left_to_ray() -> None:
    asks = [Ask(what=f"part {n}", num_gpus=3) for n in range(30)]

    check_there_is(asks, "PACK", [node(f"n{n}", gpus=5) for n in range(29)], key="k")
