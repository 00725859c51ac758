"""A model cut into stages in one process answers as the whole model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from cluster.client import Client
from cluster.client.staged.placement import placement_of, yaml_of
from cluster.config.model_card import Provenance
from cluster.config.store import new_version, seal
from cluster.errors import ConfigError, InvalidRequest, Unsupported
from cluster.optimization.language.causal_lm import causal_lm_card
from tests.cluster.client.places import Place
from tests.cluster.engines.sharded.directories import (
    bert,
    expected,
    gpt2,
    llama,
    qwen2,
    saved,
)

IDS = np.array([[5, 7, 11, 2], [9, 1, 3, 4], [8, 8, 8, 1]], np.int64)


@pytest.mark.parametrize("strategy", ["layer", "pipeline"])
@pytest.mark.parametrize("shards", [1, 2, 4])
def test_the_logits_of_a_language_model_are_transformers_own(
    tmp_path: Path, strategy: str, shards: int
) -> None:
    model = llama()
    saved(model, tmp_path)
    with Client(device="cpu") as client:
        cut = client.shard_model(tmp_path, shards, strategy)

        found = cut.predict(input_ids=IDS)["logits"]

        assert len(cut.backend.stage_bytes) == shards  # type: ignore[attr-defined]
        assert np.allclose(
            found, expected(model, {"input_ids": torch.from_numpy(IDS)}).numpy(), atol=1e-4
        )


def test_each_stage_holds_its_own_layers_only(place: Place) -> None:
    with place.client() as client:
        whole: Any = client.load_model(place.llama).backend
        cut: Any = client.shard_model(place.llama, 4).backend

        assert max(cut.stage_bytes) < whole.stage_bytes[0]
        assert sum(cut.stage_bytes) == whole.stage_bytes[0]


@pytest.mark.parametrize("make", [llama, qwen2, gpt2])
def test_generation_is_greedy_transformers_with_and_without_a_cache_and_cut(
    tmp_path: Path, make: Any
) -> None:
    model = make()
    saved(model, tmp_path)
    with torch.no_grad():
        whole = model.generate(
            torch.from_numpy(IDS[:1]), max_new_tokens=8, do_sample=False, eos_token_id=None,
            pad_token_id=0,
        )  # fmt: skip
    right = whole[0, IDS.shape[1] :].tolist()
    with Client(device="cpu") as client:
        loaded, cut = client.load_model(tmp_path), client.shard_model(tmp_path, 2)

        for each in (loaded, cut):
            assert each.generate(IDS[0].tolist(), max_length=8) == right
            assert each.generate(IDS[0].tolist(), max_length=8, use_cache=False) == right
            each.enable_kv_cache(32, "static")
            assert each.generate(IDS[0].tolist(), max_length=8) == right


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_model_added_to_generate_text_is_opened_and_cut_by_name_and_by_its_folder(
    tmp_path: Path, make: Any
) -> None:
    store = tmp_path / "store"
    with new_version(store, "words", "1") as folder:
        saved(make(), folder)
        seal(folder, causal_lm_card(folder, name="words", version="1", provenance=Provenance()))
    with Client(store=store, device="cpu") as client:
        whole = client.load_model("words")
        logits, tokens = whole.predict(input_ids=IDS)["logits"], whole.generate([5], max_length=6)
        assert len(tokens) == 6
        for given in ("words", "words/1", store / "words" / "1"):
            for model in (client.load_model(given), client.shard_model(given, 2)):
                assert model.name == "words"
                assert model.generate([5], max_length=6) == tokens
                assert np.allclose(model.predict(input_ids=IDS)["logits"], logits, atol=1e-4)
            model.close()


def test_an_encoder_that_is_cut_takes_text_as_its_export_does(tmp_path: Path) -> None:
    model = bert()
    saved(model, tmp_path)
    words = Tokenizer(WordLevel({"[UNK]": 0, "[PAD]": 1, "a": 2, "film": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    ids = torch.tensor([[2, 3, 0]])
    with Client(device="cpu") as client:
        found = client.shard_model(tmp_path, 2).predict(["a film tonight"])

    ones = {"attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    mean = expected(model, {"input_ids": ids, **ones}).mean(1)
    mean = mean / mean.norm(dim=-1, keepdim=True)
    assert list(found) == ["embedding"]
    assert np.allclose(found["embedding"], mean.numpy(), atol=1e-5)


def test_a_module_of_transformers_is_loaded_as_its_directory(place: Place) -> None:
    torch.manual_seed(0)
    module = llama().eval()
    with torch.no_grad():
        right = module(torch.from_numpy(IDS)).logits.numpy()
    with Client(device="cpu") as client:
        model = client.load_model(module)

        assert np.allclose(model.predict(input_ids=IDS)["logits"], right, atol=1e-4)
        assert len(model.generate([1, 2], max_length=3)) == 3


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"num_shards": 9}, "9 stages"),
        (
            {"strategy": "tensor", "num_shards": 2},
            "repository_control: explicit.*placement: {strategy: tensor",
        ),
        ({"strategy": "data", "num_shards": 2}, "strategy data needs several processes"),
        ({"shard_config": {"shard_map": {"layers.0-3": "cuda:7"}}}, "layers 0 to 3 on cuda:7 .sha"),
        ({"strategy": "sideways", "num_shards": 2}, "sideways"),
        ({"num_shards": 0}, "shards"),
        ({"shard_config": {"shard_map": {"layers.0-1": "cpu"}}}, "layer"),
        ({"shard_config": {"colour": "red"}}, "colour"),
    ],
)
def test_a_cut_that_cannot_be_is_told(place: Place, asked: dict[str, Any], said: str) -> None:
    with place.client() as client, pytest.raises(ConfigError, match=said):
        client.shard_model(place.llama, **asked)


def test_a_cut_by_hand_has_the_layers_it_names(place: Place) -> None:
    with place.client() as client:
        cut: Any = client.shard_model(
            place.llama, shard_config={"shard_map": {"layers.0-2": "cpu", "layer_3": "cpu"}}
        ).backend

        assert [shard.layers for shard in cut.layout.shards] == [range(3), range(3, 4)]


def test_what_does_not_generate_says_so(place: Place) -> None:
    with place.client() as client:
        with pytest.raises(Unsupported, match="generates nothing"):
            client.load_model("echo").generate("once")
        model = client.load_model(place.llama)
        with pytest.raises(InvalidRequest, match="no parameter 'mood'"):
            model.generate([1], max_length=2, mood=1)
        with pytest.raises(ConfigError, match="tokenizer"):
            model.generate("once", max_length=2)


def test_the_section_of_the_yaml_says_the_same() -> None:
    assert (
        yaml_of(placement_of(2, "pipeline", None)) == "placement: {strategy: pipeline, shards: 2}"
    )
