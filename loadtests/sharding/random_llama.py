"""A Llama with random weights of any size, written layer by layer: never whole in memory."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from cluster.config.model_card import ModelCard
from cluster.optimization.huggingface.directory import card_of

VOCABULARY = 8192


def write(
    folder: Path, *, hidden: int = 2048, inner: int = 5632, num_layers: int = 11, heads: int = 16
) -> ModelCard:
    """`config.json` and a safetensors file a layer; the defaults are 2.2 GB in float32."""
    key_value = heads // 2
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": num_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value,
        "head_dim": hidden // heads,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "dtype": "float32",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    narrow = hidden // heads * key_value
    weights: dict[str, str] = {}

    def put(file: str, shapes: dict[str, tuple[int, ...]]) -> None:
        tensors = {
            name: torch.ones(shape)
            if len(shape) == 1
            else torch.randn(shape, generator=generator) * 0.02
            for name, shape in shapes.items()
        }
        save_file(tensors, folder / file)
        weights.update(dict.fromkeys(shapes, file))

    for layer in range(num_layers):
        prefix = f"model.layers.{layer}"
        put(
            f"layer-{layer}.safetensors",
            {
                f"{prefix}.self_attn.q_proj.weight": (hidden, hidden),
                f"{prefix}.self_attn.k_proj.weight": (narrow, hidden),
                f"{prefix}.self_attn.v_proj.weight": (narrow, hidden),
                f"{prefix}.self_attn.o_proj.weight": (hidden, hidden),
                f"{prefix}.mlp.gate_proj.weight": (inner, hidden),
                f"{prefix}.mlp.up_proj.weight": (inner, hidden),
                f"{prefix}.mlp.down_proj.weight": (hidden, inner),
                f"{prefix}.input_layernorm.weight": (hidden,),
                f"{prefix}.post_attention_layernorm.weight": (hidden,),
            },
        )
    put(
        "outer.safetensors",
        {
            "model.embed_tokens.weight": (VOCABULARY, hidden),
            "model.norm.weight": (hidden,),
            "lm_head.weight": (VOCABULARY, hidden),
        },
    )
    index = {"weight_map": weights}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return card_of(folder, name="random-llama")
