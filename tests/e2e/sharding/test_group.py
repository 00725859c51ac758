"""Groups of processes without Ray, on small random models of every family."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from actors.sharding.control import Ready
from actors.sharding.shard_group import ShardGroup
from cluster.config.model_card import ModelCard
from cluster.config.store import ModelStore
from cluster.config.variant import ProcessLimits
from cluster.errors import EngineFailed, InvalidRequest, ShardLost
from cluster.optimization.add import add_model
from tests.cluster.engines.sharded.directories import MODELS, expected, inputs_of, llama, saved
from tests.e2e.sharding.groups import group

pytestmark = pytest.mark.timeout(300)


def arrays(family: str) -> dict[str, Any]:
    return {name: value.numpy() for name, value in inputs_of(family).items()}


@pytest.mark.parametrize(
    ("family", "placement"),
    [
        pytest.param("llama", {"strategy": "tensor", "shards": 3}, marks=pytest.mark.whole),
        ("gpt2", {"strategy": "tensor", "shards": 2}),
        pytest.param(
            "qwen2", {"strategy": "pipeline", "shards": 4, "tensor": 2}, marks=pytest.mark.whole
        ),
        pytest.param("qwen3", {"strategy": "tensor", "shards": 2}, marks=pytest.mark.whole),
        pytest.param("bert", {"strategy": "tensor", "shards": 4}, marks=pytest.mark.whole),
        pytest.param(
            "vit", {"strategy": "pipeline", "shards": 4, "tensor": 2}, marks=pytest.mark.whole
        ),
        ("llama", {"strategy": "pipeline", "shards": 4, "tensor": 2, "transport": "gloo"}),
    ],
    ids=str,
)
def test_slices_of_every_family_compute_what_transformers_does(
    family: str, placement: dict[str, Any], tmp_path: Path
) -> None:
    model = MODELS[family]()
    saved(model, tmp_path / "directory")
    store = ModelStore(tmp_path / "store")
    card = add_model(tmp_path / "directory", store, family, format_="huggingface")

    with group(card, store.folder(family), **placement) as shards:
        (found,) = shards.infer(arrays(family)).values()

    assert np.abs(found - expected(model, inputs_of(family)).numpy()).max() < 1e-5


def test_no_shard_opens_a_tensor_that_is_not_its_own(tmp_path: Path) -> None:
    card = saved(llama(), tmp_path)
    with group(card, tmp_path, strategy="layer", shards=4) as shards:
        ready = [found for found in shards.ready if isinstance(found, Ready)]

    for rank, found in enumerate(ready):
        layers = {name.split(".")[2] for name in found.opened if ".layers." in name}
        assert layers == {str(rank)}
        assert ("model.embed_tokens.weight" in found.opened) == (rank == 0)
        assert ("lm_head.weight" in found.opened) == (rank == 3)


def test_limits_hold_for_every_shard(tmp_path: Path) -> None:
    card = saved(llama(), tmp_path)
    with group(card, tmp_path, strategy="layer", shards=2, limits=ProcessLimits(nice=7)) as shards:
        assert [psutil.Process(pid).nice() for pid in shards.pids] == [7, 7]


def test_a_shard_that_takes_more_memory_than_it_may_ends_its_group(tmp_path: Path) -> None:
    card = saved(llama(), tmp_path)
    limits = ProcessLimits(memory_limit_mb=64)  # less than torch alone
    with (
        pytest.raises(EngineFailed, match="ended with -9"),
        group(card, tmp_path, strategy="layer", shards=2, limits=limits),
    ):
        pass


def test_an_exported_program_is_cut_and_its_stages_pipelined(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()).eval()
    example = torch.randn(6, 8)
    program = torch.export.export(
        model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, tmp_path / "model.pt2")
    card = ModelCard.model_validate(
        {
            "name": "exported",
            "format": "torch_export",
            "artefact": "model.pt2",
            "signature": {
                "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 8]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 32]}],
            },
        }
    )

    with group(card, tmp_path, strategy="pipeline", shards=2, micro_batches=3) as shards:
        found = shards.infer({"input": example.numpy()})["y"]
        opened = [each.opened for each in shards.ready if isinstance(each, Ready)]

    assert np.abs(found - model(example).detach().numpy()).max() < 1e-6
    assert not set(opened[0]) & set(opened[1])


def use_until_lost(shards: ShardGroup) -> None:
    while True:
        shards.infer(arrays("llama"))


@pytest.fixture
def random_llama(tmp_path: Path) -> ModelCard:
    return saved(llama(), tmp_path)


def test_a_token_beyond_the_vocabulary_ends_its_own_request_only(
    random_llama: ModelCard, tmp_path: Path
) -> None:
    with group(random_llama, tmp_path, strategy="tensor", shards=2) as shards:
        with pytest.raises(InvalidRequest, match="input_ids holds 10000; allowed: 0 to 95"):
            shards.infer({"input_ids": np.array([[10_000]])})
        assert shards.infer(arrays("llama"))["logits"].shape == (2, 7, 96)


@pytest.mark.parametrize(
    ("number", "placement"),
    [
        (signal.SIGKILL, {"strategy": "tensor", "shards": 2}),
        (signal.SIGSTOP, {"strategy": "pipeline", "shards": 3}),
        pytest.param(
            signal.SIGKILL, {"strategy": "pipeline", "shards": 3}, marks=pytest.mark.whole
        ),
        pytest.param(signal.SIGSTOP, {"strategy": "tensor", "shards": 2}, marks=pytest.mark.whole),
    ],
    ids=str,
)
def test_a_group_that_loses_a_shard_stops_as_one(
    number: int, placement: dict[str, Any], random_llama: ModelCard, tmp_path: Path
) -> None:
    lost: list[str] = []
    is_lost = threading.Event()

    def on_lost(reason: str) -> None:
        lost.append(reason)
        is_lost.set()

    options = {**placement, "heartbeat_timeout_s": 1.5, "on_lost": on_lost}
    with group(random_llama, tmp_path, **options) as shards:
        shards.infer(arrays("llama"))
        pids = shards.pids
        os.kill(pids[1], number)

        with pytest.raises(ShardLost) as caught:
            use_until_lost(shards)
        assert is_lost.wait(20)

        assert caught.value.details["retry_after_s"]
        assert len(lost) == 1
        for pid in pids:
            assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"
        with pytest.raises(ShardLost):
            shards.infer(arrays("llama"))
