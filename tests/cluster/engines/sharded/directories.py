"""Hugging Face directories with random weights, small enough to make in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import logging

from cluster.config.model_card import ModelCard
from cluster.optimization.huggingface.directory import card_of

logging.disable_progress_bar()
VOCABULARY = 96


LLAMA = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 12,
    "num_key_value_heads": 6,
    "vocab_size": VOCABULARY,
}


def llama(**given: Any) -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**(LLAMA | given)))


def mistral() -> Any:
    return transformers.MistralForCausalLM(
        transformers.MistralConfig(**LLAMA, sliding_window=3, head_dim=8)
    )


def qwen2() -> Any:
    """Its last two layers look back three tokens, the first two as far as there are any."""
    config = transformers.Qwen2Config(
        **LLAMA, use_sliding_window=True, sliding_window=3, max_window_layers=2
    )
    return transformers.Qwen2ForCausalLM(config)


def qwen3() -> Any:
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**LLAMA, head_dim=8))


def gpt2() -> Any:
    config = transformers.GPT2Config(
        n_embd=48, n_layer=4, n_head=12, vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2
    )
    return transformers.GPT2LMHeadModel(config)


def bert() -> Any:
    config = transformers.BertConfig(
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=12,
        intermediate_size=96,
        vocab_size=VOCABULARY,
    )
    return transformers.BertModel(config)


def vit() -> Any:
    config = transformers.ViTConfig(
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=12,
        intermediate_size=96,
        image_size=32,
        patch_size=16,
        num_labels=5,
    )
    return transformers.ViTForImageClassification(config)


MODELS = {
    "llama": llama,
    "mistral": mistral,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "gpt2": gpt2,
    "bert": bert,
    "vit": vit,
}


def inputs_of(family: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    if family == "vit":
        return {"pixel_values": torch.randn(2, 3, 32, 32, generator=generator)}
    ids = torch.randint(0, VOCABULARY, (2, 7), generator=generator)
    if family != "bert":
        return {"input_ids": ids}
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def fill(model: Any) -> None:
    """Every weight is random, those that are made as ones and zeros too."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.1 * torch.randn(value.shape, generator=generator)
    model.eval()


def saved(model: Any, folder: Path, **options: Any) -> ModelCard:
    """Write the model, filled."""
    fill(model)
    model.save_pretrained(folder, **options)
    return card_of(folder, name="random")


def expected(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What transformers itself computes."""
    with torch.no_grad():
        answer = model(**inputs)
    found: torch.Tensor = answer.logits if hasattr(answer, "logits") else answer[0]
    return found
