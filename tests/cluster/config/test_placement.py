from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.config.placement import PlacementConfig, ShardSite
from cluster.config.variant import VariantConfig
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError


def test_parallelism_model_is_layer_placement() -> None:
    assert PlacementConfig.model_validate({"parallelism": "model", "shards": 2}).strategy == "layer"


def test_a_shard_map_alone_is_layer_placement() -> None:
    told = PlacementConfig.model_validate({"shard_map": {"layers.0-5": "cuda:0"}})

    assert told.strategy == "layer"
    assert told.shard_map == {"layers.0-5": ShardSite(device="cuda:0")}
    assert told.num_shards == 1


def test_a_site_may_name_its_node_and_a_device_for_each_slice() -> None:
    told = PlacementConfig.model_validate(
        {
            "tensor": 2,
            "shard_map": {
                "layers.0": {"node": "a", "devices": ["cuda:0", "cuda:1"]},
                "layers.1": {"node": "b", "devices": ["cuda:0", "cuda:1"]},
            },
        }
    )

    assert told.num_shards == 4
    assert PlacementConfig.model_validate(told.model_dump()) == told
    text = PlacementConfig.model_validate({"shard_map": {"layers.0": "rack/3/cuda:1"}})
    assert text.shard_map == {"layers.0": ShardSite(device="cuda:1", node="rack/3")}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"strategy": "single", "shards": 2}, "has one process a replica"),
        ({"strategy": "pipeline"}, "needs `shards` or a `shard_map`"),
        ({"strategy": "tensor", "shard_map": {"layers.0": "cpu"}, "shards": 1}, "excludes"),
        ({"strategy": "pipeline", "shards": 4, "tensor": 3}, "no multiple of tensor"),
        ({"strategy": "tensor", "shards": 4, "tensor": 2}, "cuts every layer into all 4 shards"),
        ({"strategy": "layer", "shards": 2, "devices": ["cpu"]}, "devices names 1, shards is 2"),
        ({"strategy": "layer", "shard_map": {"layers.0": "gpu:0"}}, "'gpu:0' is not known"),
        (
            {"strategy": "layer", "tensor": 2, "shard_map": {"layers.0": "cuda:0"}},
            r"shard_map.layers.0 puts 2 slices on cuda:0 alone",
        ),
        (
            {"tensor": 2, "shard_map": {"layers.0": {"devices": ["cuda:0"]}}},
            "names 1 devices for 2 slices",
        ),
        (
            {"strategy": "layer", "shards": 1, "devices": ["a/cpu"], "nodes": {"b": {"z": "1"}}},
            "nodes.b: nothing is placed on it; allowed: a",
        ),
        (
            {"strategy": "layer", "shards": 2, "devices": ["a/cpu", "cpu"]},
            "give every shard a node, or none",
        ),
        ({"parallelism": "model", "strategy": "layer", "shards": 2}, "give one of them"),
        ({"strategy": "tensor"}, "strategy tensor needs `shards`$"),
        ({"strategy": "ring", "shards": 2}, "no such strategy"),
        ({"max_memory_mb": 100}, "max_memory_mb does nothing under strategy single: it is for"),
        ({"strategy": "data", "devices": ["cuda:0", "cuda:1"]}, "devices does nothing under str"),
        ({"kv_cache": "static"}, "kv_cache does nothing .* `strategy: layer, shards: 1` has one"),
        ({"shard_map": {"layers.0": "cpu"}, "micro_batches": 4}, "strategy pipeline has several"),
        ({"strategy": "layer", "shards": 1, "kv_cache_tokens": 64}, "it is dynamic"),
    ],
)
def test_what_contradicts_itself_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PlacementConfig.model_validate(given)
    messages = [detail["msg"] for detail in caught.value.errors()]
    assert any(re.search(said, message) for message in messages), messages


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["block.0-5"], "placement.shard_map.block.0-5: 'block.0-5' names no layers; allowed: lay"),
        (["layers.5-0"], "shard_map.layers.5-0: 'layers.5-0' ends (layer 0) before it begins"),
        (["layers.0-5", "layers.5-9"], "layers.5-9: on cuda:0: layer 5 has a device already"),
        (["layers.0-5", "layer_8_to_9"], "on cuda:0: layers 6 to 7 are on no device before it"),
        (["layers.1-5"], "on cuda:0: layer 0 is on no device before it; allowed: the layers in or"),
    ],
)
def test_a_map_that_fits_no_model_is_refused_before_one_is_looked_at(
    keys: list[str], said: str
) -> None:
    section = {"source": "m", "placement": {"shard_map": dict.fromkeys(keys, "cuda:0")}}
    with pytest.raises(ConfigError) as caught:
        check_section(section, VariantConfig, source="f.yaml")
    assert said in caught.value.message


def test_a_demand_is_for_the_planner_to_meet() -> None:
    with pytest.raises(ValueError, match="demand is what auto plans for; strategy is layer"):
        PlacementConfig.model_validate(
            {"strategy": "layer", "shards": 2, "demand": {"rate_per_s": 5}}
        )
    told = PlacementConfig.model_validate({"strategy": "auto", "demand": {"rate_per_s": 5}})
    assert PlacementConfig.model_validate(told.model_dump()) == told


@pytest.mark.parametrize("num_gpus", [0, 0.25, 1, 4])
def test_a_share_of_a_gpu_or_whole_ones_are_reserved(num_gpus: float) -> None:
    variant = VariantConfig.model_validate({"source": "m", "resources": {"num_gpus": num_gpus}})

    assert variant.resources.num_gpus == num_gpus


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"resources": {"num_gpus": 1.5}}, r"a share of a GPU \(0\.01 to 0\.99\) or whole ones"),
        ({"resources": {"num_gpus": 0.001}}, r"a share of a GPU .* got 0\.001"),
        (
            {"resources": {"num_gpus": 0.5}, "placement": {"strategy": "layer", "shards": 2}},
            "num_gpus excludes a sharded placement: each shard has the GPU that its placement",
        ),
        (
            {"device": "cuda:0", "placement": {"strategy": "layer", "shards": 2}},
            r"puts its 2 shards on processors; write placement\.devices: \[cuda:0, cuda:1\], or",
        ),
        (
            {"device": "cuda", "placement": {"shard_map": {"layers.0": "cpu", "layers.1": "cpu"}}},
            "write each run's device in the shard_map, or device: cpu",
        ),
        (
            {"resources": {"num_gpus": 0.5}, "engine": "vllm", "llm": {"tensor_parallel": 2}},
            r"num_gpus is 0\.5; llm spans 2 GPUs, whole ones",
        ),
        (
            {"resources": {"num_gpus": 0.5}, "engine": "vllm", "llm": {}},
            r"gpu_memory_utilization takes 0\.9 of its memory; allowed: at most 0\.5",
        ),
    ],
)
def test_gpus_that_ray_cannot_give_so_are_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        VariantConfig.model_validate({"source": "m", **section})
