"""Shards on a real GPU: the same numbers as on the CPU. Skips, and says why, without CUDA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from actors.sharding.control import Ready
from actors.sharding.starters import ProcessStarter
from cluster.engines.sharded.part import PartSetup, Step
from cluster.engines.sharded.torch_part import TorchPart
from cluster.placement.partition import Shard
from tests.cluster.engines.sharded.directories import expected, inputs_of, llama, saved
from tests.e2e.sharding.groups import group

pytestmark = [
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine"
    ),
    pytest.mark.timeout(300),
]


def whole(folder: Path, card: Any, **given: Any) -> TorchPart:
    shard = Shard(
        rank=0,
        stage=0,
        num_stages=1,
        tensor_rank=0,
        tensor_degree=1,
        layers=range(4),
        device="cuda:0",
    )
    return TorchPart(PartSetup(card=card, folder=folder, shard=shard, **given))


def test_slices_over_nccl_at_degree_1_compute_what_transformers_does(tmp_path: Path) -> None:
    model = llama()
    card = saved(model, tmp_path)
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        part = whole(tmp_path, card, group=dist.group.WORLD)
        part.load()
        found = part.run(dict(inputs_of("llama")), Step())["logits"]
        assert found.is_cuda
    finally:
        dist.destroy_process_group()

    assert torch.allclose(found.cpu(), expected(model, inputs_of("llama")), atol=1e-4)


@pytest.mark.parametrize("strategy", ["layer", "pipeline", "tensor"])
def test_two_shards_share_one_gpu(strategy: str, tmp_path: Path) -> None:
    model = llama()
    card = saved(model, tmp_path)
    devices = ["cuda:0", "cuda:0"]
    ids = {"input_ids": inputs_of("llama")["input_ids"].numpy()}
    placement = {"strategy": strategy, "shards": 2, "devices": devices}
    with group(card, tmp_path, starter=ProcessStarter, **placement) as shards:
        found = shards.infer(ids)["logits"]
        assert shards.facts.device == "cuda:0"

    assert np.abs(found - expected(model, inputs_of("llama")).numpy()).max() < 1e-4


def test_a_map_puts_some_layers_on_the_gpu_and_some_on_the_cpu(tmp_path: Path) -> None:
    model = llama()
    card = saved(model, tmp_path)
    ids = {"input_ids": inputs_of("llama")["input_ids"].numpy()}
    places = {"layers.0-1": "cuda:0", "layers.2-3": "cpu"}
    with group(card, tmp_path, starter=ProcessStarter, shard_map=places) as shards:
        found = shards.infer(ids)["logits"]
        ready = [each for each in shards.ready if isinstance(each, Ready)]
        assert all(".layers.3." not in name for name in ready[0].opened)
        assert shards.facts.device == "cuda:0+cpu"

    assert np.abs(found - expected(model, inputs_of("llama")).numpy()).max() < 1e-4


def test_layers_beyond_the_cap_stay_in_host_memory(tmp_path: Path) -> None:
    model = llama(hidden_size=480, intermediate_size=1920, num_hidden_layers=8)
    card = saved(model, tmp_path)
    layer_bytes = sum(p.numel() * 4 for p in model.model.layers[0].parameters())
    all_bytes = sum(p.numel() * 4 for p in model.parameters())
    cap = all_bytes - 5 * layer_bytes
    shard = Shard(
        rank=0,
        stage=0,
        num_stages=1,
        tensor_rank=0,
        tensor_degree=1,
        layers=range(8),
        device="cuda:0",
    )
    part = TorchPart(PartSetup(card=card, folder=tmp_path, shard=shard, max_memory_bytes=cap))
    torch.cuda.reset_peak_memory_stats()
    part.load()

    found = [part.run(dict(inputs_of("llama")), Step())["logits"] for _ in range(2)]

    for each in found:
        assert torch.allclose(each.cpu(), expected(model, inputs_of("llama")), atol=1e-3)
    # Activations of seven tokens are beside it.
    assert torch.cuda.max_memory_allocated() < cap + layer_bytes
