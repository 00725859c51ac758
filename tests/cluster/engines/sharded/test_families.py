"""Families that are not in the list, added as `cluster.engines.sharded.families` says: what differs
from Llama in each of them is what an entry must be able to tell."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import transformers

from cluster.config.model_card import ModelCard
from cluster.engines.sharded import families
from cluster.engines.sharded.families import FAMILIES, Family, Given, _gone, _identity, _nothing
from cluster.engines.sharded.part import PartSetup, Step
from cluster.engines.sharded.torch_part import TorchPart
from cluster.errors import ConfigError
from cluster.placement.partition import Shard
from tests.cluster.engines.sharded.directories import LLAMA, VOCABULARY, expected, fill

SIZES = {"num_attention_heads": 12, "num_hidden_layers": 4, "vocab_size": VOCABULARY}


def gemma() -> Any:
    """Its table has a factor in a buffer, computed and in no file."""
    return transformers.GemmaForCausalLM(transformers.GemmaConfig(**LLAMA, head_dim=4))


def opt() -> Any:
    """Its positions come by name, and its attention counts its heads."""
    config = transformers.OPTConfig(
        **SIZES, hidden_size=48, ffn_dim=96, word_embed_proj_dim=48, max_position_embeddings=32
    )
    return transformers.OPTForCausalLM(config)


def gptj() -> Any:
    """transformers has no scaled-dot-product attention for it; each layer has a table of angles."""
    config = transformers.GPTJConfig(
        n_embd=48, n_layer=4, n_head=12, rotary_dim=4, vocab_size=VOCABULARY,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return transformers.GPTJForCausalLM(config)


def distilbert() -> Any:
    """Its embedding is given hidden states by place, not by name."""
    config = transformers.DistilBertConfig(
        dim=48, hidden_dim=96, n_layers=4, n_heads=12, vocab_size=VOCABULARY
    )
    return transformers.DistilBertModel(config)


ENTRIES: dict[str, tuple[Callable[[], Any], Family]] = {
    "gemma": (gemma, families._like_llama(transformers.GemmaForCausalLM)),
    "opt": (
        opt,
        Family(
            model_class=transformers.OPTForCausalLM,
            body="model",
            layers="model.decoder.layers",
            before={"model.decoder.embed_tokens": _gone, "model.decoder.embed_positions": _nothing},
            after={"model.decoder.final_layer_norm": _identity, "lm_head": _gone},
            head="lm_head",
            output="logits",
            first_input="input_ids",
            has_cache=True,
            columns=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "fc1"),
            rows=("self_attn.out_proj", "fc2"),
            divided=("self_attn.num_heads",),
            vocabulary="model.decoder.embed_tokens",
        ),
    ),
    "gptj": (
        gptj,
        Family(
            model_class=transformers.GPTJForCausalLM,
            body="transformer",
            layers="transformer.h",
            before={"transformer.wte": _gone},
            after={"transformer.ln_f": _identity, "lm_head": _gone},
            head="lm_head",
            output="logits",
            first_input="input_ids",
            has_cache=True,
        ),
    ),
    "distilbert": (
        distilbert,
        Family(
            model_class=transformers.DistilBertModel,
            body="",
            layers="transformer.layer",
            before={"embeddings": Given},
            after={},
            head="",
            output="last_hidden_state",
            first_input="input_ids",
            beside=("attention_mask",),
        ),
    ),
}


def part_of(folder: Path, layers: range, *, degree: int = 1, **given: Any) -> TorchPart:
    shard = Shard(
        rank=0, stage=int(layers.start > 0), num_stages=1 if len(layers) == 4 else 2,
        tensor_rank=0, tensor_degree=degree, layers=layers, device="cpu",
    )  # fmt: skip
    card = ModelCard.model_validate(
        {
            "name": "other",
            "format": "huggingface",
            "artefact": ".",
            "signature": {
                "inputs": [{"name": "input_ids", "datatype": "INT64", "shape": [-1, -1]}],
                "outputs": [{"name": "out", "datatype": "FP32", "shape": [-1, -1, -1]}],
            },
        }
    )
    return TorchPart(PartSetup(card=card, folder=folder, shard=shard, **given))


def prompt(family: Family) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(7))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    return {"input_ids": ids, **({"attention_mask": mask} if family.beside else {})}


@pytest.fixture(params=ENTRIES)
def other(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, Family]:
    """A model in `tmp_path`, and the entry of its family."""
    make, family = ENTRIES[request.param]
    monkeypatch.setitem(FAMILIES, request.param, family)
    model = make()
    fill(model)
    model.save_pretrained(tmp_path)
    return model, family


def test_a_family_by_its_entry_alone_computes_what_transformers_does(
    other: tuple[Any, Family], tmp_path: Path
) -> None:
    model, family = other
    wanted = expected(model, prompt(family))
    for cut in ([range(4)], [range(1), range(1, 4)]):
        values: dict[str, Any] = prompt(family)
        for layers in cut:
            part = part_of(tmp_path, layers)
            part.load()
            values = part.run(values, Step())

        assert torch.allclose(values[family.output], wanted, atol=1e-5), cut


def test_a_buffer_that_nothing_computes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be any numbers, and the answers with it."""

    class Biased(transformers.GemmaForCausalLM):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model.norm.register_buffer("slope", torch.ones(3), persistent=False)

    model = gemma()
    fill(model)
    model.save_pretrained(tmp_path)
    family = replace(ENTRIES["gemma"][1], model_class=Biased)
    monkeypatch.setitem(FAMILIES, "gemma", family)

    with pytest.raises(ConfigError, match=r"the buffer model\.norm\.slope of the family gemma"):
        part_of(tmp_path, range(4)).load()


def test_a_buffer_that_the_checkpoint_has_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Kept(transformers.GemmaForCausalLM):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model.norm.register_buffer("slope", torch.arange(3.0))

    model = Kept(transformers.GemmaConfig(**LLAMA, head_dim=4))
    fill(model)
    model.save_pretrained(tmp_path)
    monkeypatch.setitem(FAMILIES, "gemma", replace(ENTRIES["gemma"][1], model_class=Kept))
    part = part_of(tmp_path, range(4))
    part.load()

    assert part._model.model.norm.slope.tolist() == [0, 1, 2]


def one_slice(rank: int, folder: Path) -> list[Any]:
    """In a process of its own: one of two slices of every layer of OPT."""
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(folder / "store"), 2), rank=rank, world_size=2
    )
    family = ENTRIES["opt"][1]
    FAMILIES["opt"] = family
    part = part_of(folder, range(4), degree=2, group=dist.group.WORLD)
    part.load()
    found: list[Any] = part.run(dict(prompt(family)), Step())["logits"].tolist()
    dist.destroy_process_group()
    return found


@pytest.mark.whole
def test_heads_that_a_layer_counts_are_divided_among_the_slices(tmp_path: Path) -> None:
    model = opt()
    fill(model)
    model.save_pretrained(tmp_path)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        found, _ = pool.map(one_slice, (0, 1), (tmp_path, tmp_path))

    assert torch.allclose(
        torch.tensor(found), expected(model, prompt(ENTRIES["opt"][1])), atol=1e-5
    )
