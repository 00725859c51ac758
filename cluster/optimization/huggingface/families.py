"""What can be made of a Hugging Face directory, by what its config.json says. Reads no weights and
imports no torch: the model store and the command line ask here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from cluster.config.model_card import SignatureCard, TensorCard
from cluster.errors import ConfigError

DirectoryFormat = Literal["huggingface", "causal_lm", "onnx"]
"""`huggingface`: run from the files as they are, whole or cut into shards. `causal_lm`: text in,
text out. `onnx`: an encoder, exported."""

ENCODERS: dict[str, tuple[str, ...]] = {
    "bert": ("input_ids", "attention_mask", "token_type_ids"),
    "roberta": ("input_ids", "attention_mask"),
    "xlm-roberta": ("input_ids", "attention_mask"),
    "distilbert": ("input_ids", "attention_mask"),
}
"""`model_type` of config.json -> the inputs that its encoder takes, once exported to ONNX."""

WHERE_FAMILIES_ARE = "cluster/engines/sharded/families.py"
Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyCard:
    """`architectures`: those whose weights are the family's; a head that is not among them would be
    left out without a word."""

    architectures: tuple[str, ...]
    signature: Callable[[Config, Path], SignatureCard]


def _causal(config: Config, file: Path) -> SignatureCard:
    shape = [-1, -1, whole(config, "vocab_size", file)]
    return SignatureCard(
        inputs=[_ids("input_ids")],
        outputs=[TensorCard(name="logits", datatype="FP32", shape=shape)],
    )


def _bert(config: Config, file: Path) -> SignatureCard:
    if config.get("is_decoder"):
        raise ConfigError(
            f"{file}: is_decoder: a BERT that generates is not run from its directory; allowed: "
            "an encoder",
            file=str(file),
            key="is_decoder",
            value="true",
            allowed="false",
        )
    shape = [-1, -1, whole(config, "hidden_size", file)]
    return SignatureCard(
        inputs=[_ids(each) for each in ENCODERS["bert"]],
        outputs=[TensorCard(name="last_hidden_state", datatype="FP32", shape=shape)],
    )


def _vit(config: Config, file: Path) -> SignatureCard:
    side = whole(config, "image_size", file, 224)
    channels = whole(config, "num_channels", file, 3)
    classes = len(config.get("id2label") or {}) or whole(config, "num_labels", file, 2)
    image = [-1, channels, side, side]
    return SignatureCard(
        inputs=[TensorCard(name="pixel_values", datatype="FP32", shape=image)],
        outputs=[TensorCard(name="logits", datatype="FP32", shape=[-1, classes])],
    )


CARDS: dict[str, FamilyCard] = {
    "llama": FamilyCard(architectures=("LlamaForCausalLM", "LlamaModel"), signature=_causal),
    "mistral": FamilyCard(architectures=("MistralForCausalLM", "MistralModel"), signature=_causal),
    "qwen2": FamilyCard(architectures=("Qwen2ForCausalLM", "Qwen2Model"), signature=_causal),
    "qwen3": FamilyCard(architectures=("Qwen3ForCausalLM", "Qwen3Model"), signature=_causal),
    "gpt2": FamilyCard(architectures=("GPT2LMHeadModel", "GPT2Model"), signature=_causal),
    "bert": FamilyCard(architectures=("BertModel", "BertForMaskedLM"), signature=_bert),
    "vit": FamilyCard(architectures=("ViTForImageClassification",), signature=_vit),
}
"""`model_type` -> the card of the families that `cluster.engines.sharded.families` runs."""
GENERATING = tuple(kind for kind, card in CARDS.items() if card.signature is _causal)
"""Those that give logits of tokens."""


def read_config(directory: Path) -> dict[str, Any]:
    """Raises: ConfigError for a config.json that is missing or no object."""
    file = directory / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{directory}: no config.json; a Hugging Face directory has config.json and its "
            "weights as safetensors",
            file=str(file),
        ) from None
    except ValueError as error:
        raise ConfigError(f"{file}: not JSON: {error}", file=str(file)) from None
    if not isinstance(config, dict):
        raise ConfigError(f"{file}: not an object", file=str(file))
    return config


def architectures_of(config: Config) -> tuple[str, ...]:
    return tuple(str(each) for each in config.get("architectures") or ())


def generates(config: Config) -> bool:
    """Whether the directory says that it generates text."""
    return any(each.endswith(("ForCausalLM", "LMHeadModel")) for each in architectures_of(config))


def is_run_as_it_is(config: Config) -> bool:
    """Whether it can be of format `huggingface`."""
    card = CARDS.get(str(config.get("model_type")))
    return card is not None and set(architectures_of(config)) <= set(card.architectures)


def is_encoder(config: Config) -> bool:
    """Whether it can be exported to ONNX with its text processing."""
    # A head for a task is more than the encoder; serving the encoder alone would drop it silently.
    has_head = any(
        not each.endswith(("Model", "ForMaskedLM")) or each.endswith("LMHeadModel")
        for each in architectures_of(config)
    )
    return str(config.get("model_type")) in ENCODERS and not has_head


def format_of(directory: Path, wanted: str = "") -> DirectoryFormat:
    """What becomes of the directory: what is `wanted`, else text where it generates and has a
    tokenizer, ONNX for an encoder, and its own files for the other families.

    Raises: ConfigError naming what is supported, for another one.
    """
    allowed = get_args(DirectoryFormat)
    if wanted and wanted not in allowed:
        raise ConfigError(
            f"format {wanted!r} of a Hugging Face directory; allowed: {', '.join(allowed)}",
            key="format",
            value=wanted,
            allowed=", ".join(allowed),
        )
    config = read_config(directory)
    if config.get("quantization_config"):
        raise ConfigError(
            f"{directory / 'config.json'}: quantization_config: the weights are quantised by "
            "another tool; add the directory of the model before that",
            file=str(directory / "config.json"),
            key="quantization_config",
        )
    can: dict[DirectoryFormat, bool] = {
        "causal_lm": generates(config) and (directory / "tokenizer.json").is_file(),
        "onnx": is_encoder(config),
        "huggingface": is_run_as_it_is(config),
    }
    for format_, is_possible in can.items():
        if is_possible and wanted in ("", format_):
            return format_
    if wanted == "causal_lm" and generates(config):
        file = directory / "tokenizer.json"
        raise ConfigError(
            f"{directory}: no tokenizer.json; without it text cannot become tokens. The format "
            "huggingface takes token ids",
            file=str(file),
        )
    raise unsupported(directory, config, wanted)


def unsupported(directory: Path, config: Config, wanted: str = "") -> ConfigError:
    """Says what the directory is, what is supported and what to do about another family."""
    kind = str(config.get("model_type", ""))
    shown = ", ".join(architectures_of(config)) or "no architecture"
    run = "; ".join(f"{name} ({', '.join(card.architectures)})" for name, card in CARDS.items())
    return ConfigError(
        f"{directory}: {shown} (model_type {kind!r}) cannot be added from a Hugging Face "
        f"directory{f' as {wanted}' if wanted else ''}. Run from their files, whole or in shards "
        f"(format huggingface): {run}. "
        f"Exported (format onnx): encoders without a task head of {', '.join(ENCODERS)}. "
        "Generating text (format causal_lm): any ...ForCausalLM with a tokenizer.json. A family is "
        f"added as {WHERE_FAMILIES_ARE} says; or export the model to ONNX or torch.export and add "
        "that file",
        file=str(directory / "config.json"),
        key="model_type",
        value=kind,
        allowed=", ".join(dict.fromkeys((*CARDS, *ENCODERS))),
    )


def whole(config: Config, key: str, file: Path, default: int | None = None) -> int:
    """A size. Raises: ConfigError for one that is missing or no whole number above 0."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(
            f"{file}: {key} is {value!r}; allowed: a whole number above 0",
            file=str(file),
            key=key,
            value=str(value),
            allowed="a whole number above 0",
        )
    return value


def _ids(name: str) -> TensorCard:
    return TensorCard(name=name, datatype="INT64", shape=[-1, -1])
