"""The families of Hugging Face models that can be cut, one entry each.

To add a family: its line in `FAMILIES`. Needed are the class, where its layers are, which modules
come before and after them, what stands in for those where a part has none, and for tensor
parallelism which linear layers are cut by columns (and make heads or hidden units) and which by
rows (and add up), and which numbers a layer remembers of its heads. A family whose backbone takes
`inputs_embeds` needs no stand-in for the table; position embeddings that are added in the first
part have `_nothing`. What the config says layer by layer (`layer_types`) is cut with the layers;
what a layer works out from its number in the whole model is refused in `refuse_by_place`. A family
of Llama's shape is one line, `_like_llama`.

Beside it, under the same `model_type`: its architectures and tensors in
`cluster.optimization.huggingface.families` (`squadron models add` reads them) and its sizes in
`cluster.placement.estimates.transformers` (the planner does); a test says which is missing. A small
random model of it in `tests/cluster/engines/sharded/directories.py` is then compared with
transformers, whole and cut. `tests/cluster/engines/sharded/test_families.py` has the entries of
OPT, GPT-J, DistilBERT and Gemma as examples of families that differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from cluster.errors import ConfigError


class Given(nn.Module):
    """In an embedding's place: what comes in are hidden states already, by whatever name the family
    gives them."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        # ViT asks its projection for the data type of pictures.
        self.patch_embeddings = nn.Module()
        self.patch_embeddings.projection = nn.Module()
        self.patch_embeddings.projection.weight = torch.empty(0, dtype=dtype)

    def forward(self, *given: Any, inputs_embeds: Any = None, **named: Any) -> Any:
        if inputs_embeds is not None:
            return inputs_embeds
        # Beside them stand position ids and the like, which are whole numbers.
        tensors = (x for x in (*given, *named.values()) if isinstance(x, torch.Tensor))
        return next(x for x in tensors if x.is_floating_point())


class Nothing(nn.Module):
    """In the place of position embeddings that were added in the first part, whatever theirs are
    made of."""

    def forward(self, *given: Any, **named: Any) -> torch.Tensor:
        tensors = (x for x in (*given, *named.values()) if isinstance(x, torch.Tensor))
        return torch.zeros((), device=next(tensors).device)


Standin = Callable[[torch.dtype], nn.Module | None]


def _gone(dtype: torch.dtype) -> nn.Module | None:
    return None


def _identity(dtype: torch.dtype) -> nn.Module | None:
    return nn.Identity()


def _nothing(dtype: torch.dtype) -> nn.Module | None:
    return Nothing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """`body`: the backbone's attribute ("" when the model is it), `layers`: below the model.

    `before` and `after` map a module to its stand-in where a part lacks it; `head`: what makes the
    output of hidden states. `hidden_name`: how the backbone takes hidden states. `beside`: inputs
    that every part needs. `columns`, `rows`: linear layers below one layer; `fused`: a column
    layer that makes several things side by side, and their number; `divided`: numbers below a layer
    that count heads or units of one process. `renamed`: patterns from our name of a tensor to the
    checkpoint's, where they differ.
    """

    model_class: type[Any]
    body: str
    layers: str
    before: Mapping[str, Standin]
    after: Mapping[str, Standin]
    head: str
    output: str
    first_input: str
    hidden_name: str = "inputs_embeds"
    beside: tuple[str, ...] = ()
    has_cache: bool = False
    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    fused: Mapping[str, int] = field(default_factory=dict)
    divided: tuple[str, ...] = ()
    vocabulary: str = ""
    renamed: tuple[tuple[str, str], ...] = ()
    heads: Callable[[Any], tuple[tuple[str, int], ...]] = lambda config: ()


def _llama_heads(config: Any) -> tuple[tuple[str, int], ...]:
    return (
        ("attention heads", config.num_attention_heads),
        ("key-value heads", config.num_key_value_heads),
        ("hidden units of the MLP", config.intermediate_size),
    )


def _gpt2_heads(config: Any) -> tuple[tuple[str, int], ...]:
    inner = config.n_inner or 4 * config.n_embd
    return (("attention heads", config.n_head), ("hidden units of the MLP", inner))


def _encoder_heads(config: Any) -> tuple[tuple[str, int], ...]:
    return (
        ("attention heads", config.num_attention_heads),
        ("hidden units of the MLP", config.intermediate_size),
    )


_VIT_NAMES = tuple(
    (rf"\.layers\.(\d+)\.{ours}", rf".encoder.layer.\1.{theirs}")
    for ours, theirs in (
        (r"attention\.q_proj\.", "attention.attention.query."),
        (r"attention\.k_proj\.", "attention.attention.key."),
        (r"attention\.v_proj\.", "attention.attention.value."),
        (r"attention\.o_proj\.", "attention.output.dense."),
        (r"mlp\.fc1\.", "intermediate.dense."),
        (r"mlp\.fc2\.", "output.dense."),
        ("", ""),
    )
)


def _like_llama(model_class: type[Any]) -> Family:
    return Family(
        model_class=model_class,
        body="model",
        layers="model.layers",
        before={"model.embed_tokens": _gone},
        after={"model.norm": _identity, "lm_head": _gone},
        head="lm_head",
        output="logits",
        first_input="input_ids",
        has_cache=True,
        columns=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                 "mlp.gate_proj", "mlp.up_proj"),
        rows=("self_attn.o_proj", "mlp.down_proj"),
        vocabulary="model.embed_tokens",
        heads=_llama_heads,
    )  # fmt: skip


FAMILIES: dict[str, Family] = {
    "llama": _like_llama(transformers.LlamaForCausalLM),
    "mistral": _like_llama(transformers.MistralForCausalLM),
    "qwen2": _like_llama(transformers.Qwen2ForCausalLM),
    "qwen3": _like_llama(transformers.Qwen3ForCausalLM),
    "gpt2": Family(
        model_class=transformers.GPT2LMHeadModel,
        body="transformer",
        layers="transformer.h",
        before={"transformer.wte": _gone, "transformer.wpe": _nothing},
        after={"transformer.ln_f": _identity, "lm_head": _gone},
        head="lm_head",
        output="logits",
        first_input="input_ids",
        has_cache=True,
        columns=("attn.c_attn", "mlp.c_fc"),
        rows=("attn.c_proj", "mlp.c_proj"),
        fused={"attn.c_attn": 3},
        divided=("attn.split_size",),
        vocabulary="transformer.wte",
        heads=_gpt2_heads,
    ),
    "bert": Family(
        model_class=transformers.BertModel,
        body="",
        layers="encoder.layer",
        before={"embeddings": Given},
        after={},
        head="",
        output="last_hidden_state",
        first_input="input_ids",
        beside=("attention_mask",),
        columns=("attention.self.query", "attention.self.key", "attention.self.value",
                 "intermediate.dense"),
        rows=("attention.output.dense", "output.dense"),
        heads=_encoder_heads,
    ),
    "vit": Family(
        model_class=transformers.ViTForImageClassification,
        body="vit",
        layers="vit.layers",
        before={"vit.embeddings": Given},
        after={"vit.layernorm": _identity, "classifier": _gone},
        head="classifier",
        output="logits",
        first_input="pixel_values",
        hidden_name="pixel_values",
        columns=("attention.q_proj", "attention.k_proj", "attention.v_proj", "mlp.fc1"),
        rows=("attention.o_proj", "mlp.fc2"),
        renamed=_VIT_NAMES,
        heads=_encoder_heads,
    ),
}  # fmt: skip
"""`model_type` of config.json -> its family."""


def read_config(folder: Path) -> Any:
    """The directory's config. Raises: ConfigError for one that is missing or of no family."""
    file = folder / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{file}: missing", file=str(file), key="artefact") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}: not JSON: {error}", file=str(file)) from None
    family_of(values.get("model_type"), file)
    try:
        return transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    except Exception as error:
        # Its checks of single values raise many kinds, some of them its own.
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"{file}: transformers refuses it: {said}", file=str(file)) from None


def family_of(model_type: object, file: Path) -> Family:
    found = FAMILIES.get(str(model_type))
    if found is None:
        allowed = ", ".join(FAMILIES)
        raise ConfigError(
            f"{file}: model_type {model_type!r} is of no family that can be run from its "
            f"directory; allowed: {allowed}",
            file=str(file),
            key="model_type",
            value=str(model_type),
            allowed=allowed,
        )
    return found


def checkpoint_name(family: Family, name: str, known: Callable[[str], bool]) -> str:
    """What the checkpoint calls a tensor: as we do, by the family's older names, or with or
    without the backbone's prefix (checkpoints of the bare backbone have none)."""
    candidates = [name]
    for pattern, replacement in family.renamed:
        other = re.sub(pattern, replacement, name)
        if other != name:
            candidates.append(other)
            break
    for candidate in tuple(candidates):
        if family.body and candidate.startswith(f"{family.body}."):
            candidates.append(candidate.removeprefix(f"{family.body}."))
        if not family.body:
            candidates.append(f"{type_prefix(family)}.{candidate}")
    return next((candidate for candidate in candidates if known(candidate)), name)


def refuse_by_place(config: Any) -> None:
    """Raises: ConfigError for layers that compute by their number in the whole model."""
    if getattr(config, "scale_attn_by_inverse_layer_idx", False):
        raise ConfigError(
            "scale_attn_by_inverse_layer_idx depends on a layer's place in the whole model",
            key="scale_attn_by_inverse_layer_idx",
            value="true",
            allowed="false",
        )


def keep_layers(config: Any, layers: range) -> None:
    """Make it the config of these layers alone, with what it says of each of them (`layer_types`,
    …), which the modules look up by a layer's number in the part."""
    count = config.num_hidden_layers
    for name, value in vars(config).items():
        if "layer" in name and isinstance(value, list | tuple) and len(value) == count:
            setattr(config, name, value[layers.start : layers.stop])
    config.num_hidden_layers = len(layers)


def weight_source(family: Family, config: Any, name: str, known: Callable[[str], bool]) -> str:
    """As `checkpoint_name`; a tied head's weights are the vocabulary's table."""
    found = checkpoint_name(family, name, known)
    is_tied = bool(getattr(config, "tie_word_embeddings", False))
    if is_tied and not known(found) and name == f"{family.head}.weight":
        return checkpoint_name(family, f"{family.vocabulary}.weight", known)
    return found


def type_prefix(family: Family) -> str:
    return str(family.model_class.base_model_prefix)
