from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from cluster.errors import ConfigError
from cluster.placement.estimates.transformers import Call, estimate

SIZES: dict[str, Any] = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "num_hidden_layers": 30,
    "vocab_size": 49152,
}
LLAMA = LlamaConfig(**SIZES, tie_word_embeddings=True)
MODELS: list[tuple[Any, Any]] = [
    (LlamaForCausalLM, LLAMA),
    (MistralForCausalLM, MistralConfig(**SIZES)),
    (Qwen2ForCausalLM, Qwen2Config(**SIZES)),
    (Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=96)),
    (GPT2LMHeadModel, GPT2Config(n_embd=256, n_head=4, n_layer=6)),
    (BertModel, BertConfig(hidden_size=384, intermediate_size=1536, num_attention_heads=12)),
    (ViTForImageClassification, ViTConfig(num_labels=1000)),
]


@pytest.mark.parametrize(("model", "config"), MODELS, ids=lambda value: type(value).__name__)
def test_estimated_weights_are_those_of_the_real_model(model: Any, config: Any) -> None:
    with torch.device("meta"):
        real = model(config)
    count = sum(parameter.numel() for parameter in real.parameters())

    found = estimate("m", config.to_dict() | {"num_labels": config.num_labels}, Call(), bits=32)

    assert found.weight_bytes == pytest.approx(4 * count, rel=0.002)
    assert found.source == "estimated"


@pytest.mark.parametrize(("model", "config"), MODELS, ids=lambda value: type(value).__name__)
def test_estimated_work_is_what_torch_counts(model: Any, config: Any) -> None:
    tokens = 64
    with torch.device("meta"):
        real = model(config).eval()
        is_picture = isinstance(config, ViTConfig)
        shape = (1, 3, 224, 224) if is_picture else (1, tokens)
        given = torch.zeros(shape, dtype=torch.float32 if is_picture else torch.int64)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            real(given)

    found = estimate("m", config.to_dict() | {"num_labels": config.num_labels}, Call(tokens=tokens))

    # torch counts causal attention in full where we count half of it.
    assert found.flops == pytest.approx(counter.get_total_flops(), rel=0.06)


def test_a_tied_head_is_held_twice_only_when_it_is_apart() -> None:
    found = estimate("m", LLAMA.to_dict(), Call(), bits=16)

    assert found.head.weight_bytes == 0
    assert found.tied_bytes == found.embedding.weight_bytes == 49152 * 576 * 2


def test_caches_and_passes_follow_from_the_tokens() -> None:
    found = estimate("m", LLAMA.to_dict(), Call(tokens=100, output_tokens=28), bits=16)

    assert found.layers[0].kv_bytes == 128 * 2 * 3 * 64 * 2
    assert found.num_passes == 29


def test_activations_are_the_widest_tensors_of_a_layer_and_the_rows_of_the_answer() -> None:
    answers = estimate("m", LLAMA.to_dict(), Call(tokens=100), bits=16)
    writes = estimate("m", LLAMA.to_dict(), Call(tokens=100, output_tokens=28), bits=16)

    # The residual, its normalised copy, and the two halves of the gated MLP.
    assert answers.layers[0].working_bytes == 100 * (2 * 576 + 2 * 1536) * 2
    assert writes.layers[0].working_bytes == answers.layers[0].working_bytes
    assert answers.head.working_bytes == 100 * 49152 * 2
    assert writes.head.working_bytes == 49152 * 2


@pytest.mark.parametrize(("model", "config"), MODELS, ids=lambda value: type(value).__name__)
def test_estimated_activations_bound_what_a_real_layer_keeps_alive(model: Any, config: Any) -> None:
    """Every operator's largest answer inside a layer is among what is counted."""
    tokens = 64
    largest = {"answer": 0}

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            answer = func(*args, **(kwargs or {}))
            is_view = any(each.alias_info for each in func._schema.returns)
            if isinstance(answer, torch.Tensor) and not is_view:
                largest["answer"] = max(largest["answer"], answer.numel() * 4)
            return answer

    with torch.device("meta"):
        real = model(config).eval()
        is_picture = isinstance(config, ViTConfig)
        shape = (1, 3, 224, 224) if is_picture else (1, tokens)
        given = torch.zeros(shape, dtype=torch.float32 if is_picture else torch.int64)
        with Sizes(), torch.no_grad():
            real(given)

    told = config.to_dict() | {"num_labels": config.num_labels}
    facts = estimate("m", told, Call(tokens=tokens), bits=32)
    assert max(part.working_bytes for part in facts.parts) >= largest["answer"]


def test_int8_weights_leave_caches_as_they_are() -> None:
    wide = estimate("m", LLAMA.to_dict(), Call(), bits=16).layers[0]
    narrow = estimate("m", LLAMA.to_dict(), Call(), bits=8).layers[0]

    assert narrow.weight_bytes == wide.weight_bytes // 2
    assert narrow.kv_bytes == wide.kv_bytes


def test_an_unknown_family_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"model_type 'mamba' has no estimate; allowed: llama"):
        estimate("m", {"model_type": "mamba"}, Call())


def test_a_missing_size_is_named() -> None:
    with pytest.raises(ConfigError, match="its config's hidden_size is None"):
        estimate("m", {"model_type": "llama"}, Call())
