"""FLOPs, weights, activations and caches of the families that can be cut, by their config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from cluster.errors import ConfigError
from cluster.placement.search.facts import LayerFacts, ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request: `tokens` go in, `output_tokens` are generated one by one."""

    tokens: int = 128
    output_tokens: int = 0

    @property
    def total(self) -> int:
        return self.tokens + self.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A family's sizes in one form. `matmul` weights of a layer are multiplied with every token;
    `mlp_width`: elements of a token inside the MLP at its widest; `kv_width`: what a token leaves
    in a layer's cache, in elements; `head_width`: of an answer's row. `head_tokens`: for how many
    tokens the head computes; `num_tokens`: of a request, where the call does not say; `tied`: the
    head has the embedding's weights."""

    num_layers: int
    hidden: int
    attention_width: int
    mlp_width: int
    kv_width: int
    matmul: int
    other: int
    embedding: int
    embedding_flops: float
    head: int
    head_tokens: int
    head_width: int
    splits: tuple[tuple[str, int], ...]
    num_tokens: int = 0
    tied: bool = False
    is_causal: bool = False


def estimate(kind: str, config: Mapping[str, object], call: Call, *, bits: int = 16) -> ModelFacts:
    """Estimated facts of a model of a known family.

    Raises: ConfigError for another `model_type`, and naming a size that is missing.
    """
    model_type = str(config.get("model_type"))
    shape_of = SHAPES.get(model_type)
    if shape_of is None:
        raise ConfigError(
            f"model {kind}: model_type {model_type!r} has no estimate; allowed: "
            f"{', '.join(SHAPES)}; or describe it by `layers`",
            key=f"models.{kind}.config.model_type",
            value=model_type,
            allowed=", ".join(SHAPES),
        )
    return _facts(kind, shape_of(_Sizes(kind, config), call), call, bits)


def _facts(kind: str, shape: Shape, call: Call, bits: int) -> ModelFacts:
    def num_bytes(count: float) -> int:
        return int(count * bits / 8)

    # Activations and caches are not quantised with the weights.
    wide = max(bits, 16) // 8
    tokens = shape.num_tokens or call.total
    read = tokens if shape.num_tokens else call.tokens  # The widest pass reads what goes in.
    pairs = tokens**2 / (2 if shape.is_causal else 1)
    layer = LayerFacts(
        flops=2.0 * shape.matmul * tokens + 4.0 * pairs * shape.attention_width,
        weight_bytes=num_bytes(shape.matmul + shape.other),
        activation_bytes=tokens * shape.hidden * wide,
        working_bytes=read * _width(shape) * wide,
        kv_bytes=tokens * shape.kv_width * wide,
    )
    return ModelFacts(
        kind=f"{kind}/{bits}/{call.tokens}+{call.output_tokens}",
        layers=(layer,) * shape.num_layers,
        embedding=LayerFacts(
            flops=shape.embedding_flops,
            weight_bytes=num_bytes(shape.embedding),
            activation_bytes=tokens * shape.hidden * wide,
            num_collectives=0,
        ),
        head=LayerFacts(
            flops=2.0 * shape.head * shape.head_tokens,
            weight_bytes=0 if shape.tied else num_bytes(shape.head),
            # Only the last token's row is computed where tokens are generated.
            working_bytes=wide
            * (shape.head_width if call.output_tokens else shape.head_tokens * shape.head_width),
            num_collectives=0,
        ),
        tied_bytes=num_bytes(shape.head) if shape.tied else 0,
        splits=shape.splits,
        weight_bits=bits,
        num_passes=1 + call.output_tokens,
        note="estimated from its config.json",
    )


def _width(shape: Shape) -> int:
    """Elements of a token alive at once in a layer at its widest: the residual and its normalised
    copy beside either queries, keys, values and what attention answers (its scores are never whole)
    or the MLP's inside."""
    attention = 2 * shape.attention_width + (shape.kv_width or 2 * shape.attention_width)
    return 2 * shape.hidden + max(attention, shape.mlp_width)


class _Sizes:
    def __init__(self, kind: str, config: Mapping[str, object]) -> None:
        self._kind = kind
        self._config = config

    def __call__(self, name: str, default: int | None = None) -> int:
        value = self._config.get(name, default)
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(
                f"model {self._kind}: its config's {name} is {value!r}; allowed: a whole number",
                key=f"models.{self._kind}.config.{name}",
                value=str(value),
                allowed="a whole number",
            )
        return value

    def is_set(self, name: str, default: bool) -> bool:
        return bool(self._config.get(name, default))


def _llama(size: _Sizes, call: Call) -> Shape:
    hidden, heads, inner = (
        size("hidden_size"),
        size("num_attention_heads"),
        size("intermediate_size"),
    )
    kv_heads = size("num_key_value_heads", heads)
    width = size("head_dim", hidden // heads)
    head = size("vocab_size") * hidden
    return Shape(
        num_layers=size("num_hidden_layers"),
        hidden=hidden,
        attention_width=heads * width,
        mlp_width=2 * inner,
        kv_width=2 * kv_heads * width,
        matmul=2 * hidden * heads * width + 2 * hidden * kv_heads * width + 3 * hidden * inner,
        other=2 * hidden,
        embedding=head,
        embedding_flops=0.0,
        head=head,
        head_tokens=call.total,
        head_width=size("vocab_size"),
        splits=(
            ("attention heads", heads),
            ("key-value heads", kv_heads),
            ("hidden units of the MLP", inner),
        ),
        tied=size.is_set("tie_word_embeddings", False),
        is_causal=True,
    )


def _qwen2(size: _Sizes, call: Call) -> Shape:
    """Llama's with biases where queries, keys and values are made."""
    shape = _llama(size, call)
    return replace(shape, other=shape.other + shape.attention_width + shape.kv_width)


def _qwen3(size: _Sizes, call: Call) -> Shape:
    """Llama's with a norm of a head's queries and one of its keys."""
    shape = _llama(size, call)
    heads = size("num_attention_heads")
    return replace(shape, other=shape.other + 2 * (shape.attention_width // heads))


def _gpt2(size: _Sizes, call: Call) -> Shape:
    hidden, heads = size("n_embd"), size("n_head")
    inner = size("n_inner", 4 * hidden)
    vocabulary = size("vocab_size") * hidden
    return Shape(
        num_layers=size("n_layer"),
        hidden=hidden,
        attention_width=hidden,
        mlp_width=inner,
        kv_width=2 * hidden,
        matmul=4 * hidden * hidden + 2 * hidden * inner,
        other=4 * hidden + inner + hidden + 4 * hidden,
        embedding=vocabulary + size("n_positions", 1024) * hidden,
        embedding_flops=0.0,
        head=vocabulary,
        head_tokens=call.total,
        head_width=size("vocab_size"),
        splits=(("attention heads", heads), ("hidden units of the MLP", inner)),
        tied=size.is_set("tie_word_embeddings", True),
        is_causal=True,
    )


def _encoder(size: _Sizes) -> tuple[int, int, int, int, int, tuple[tuple[str, int], ...]]:
    """(hidden, inside the MLP, weights multiplied, other weights, layers, splits) of BERT's and
    ViT's layer."""
    hidden, inner = size("hidden_size"), size("intermediate_size")
    splits = (
        ("attention heads", size("num_attention_heads")),
        ("hidden units of the MLP", inner),
    )
    matmul = 4 * hidden * hidden + 2 * hidden * inner
    return (
        hidden,
        inner,
        matmul,
        4 * hidden + inner + hidden + 4 * hidden,
        size("num_hidden_layers"),
        splits,
    )


def _bert(size: _Sizes, call: Call) -> Shape:
    hidden, inner, matmul, other, num_layers, splits = _encoder(size)
    rows = size("vocab_size") + size("max_position_embeddings", 512) + size("type_vocab_size", 2)
    return Shape(
        num_layers=num_layers,
        hidden=hidden,
        attention_width=hidden,
        mlp_width=inner,
        kv_width=0,
        matmul=matmul,
        other=other,
        embedding=rows * hidden + 2 * hidden,
        embedding_flops=0.0,
        head=hidden * hidden + hidden,
        head_tokens=1,
        head_width=hidden,
        splits=splits,
    )


def _vit(size: _Sizes, call: Call) -> Shape:
    hidden, inner, matmul, other, num_layers, splits = _encoder(size)
    patch, image = size("patch_size"), size("image_size")
    patches = (image // patch) ** 2
    filters = size("num_channels", 3) * patch * patch * hidden
    return Shape(
        num_layers=num_layers,
        hidden=hidden,
        attention_width=hidden,
        mlp_width=inner,
        kv_width=0,
        matmul=matmul,
        other=other,
        embedding=filters + hidden + (patches + 2) * hidden,
        embedding_flops=2.0 * filters * patches,
        head=hidden * size("num_labels", 1000) + 3 * hidden,
        head_tokens=1,
        head_width=size("num_labels", 1000),
        splits=splits,
        # A picture has as many tokens as patches, whatever was asked for.
        num_tokens=patches + 1,
    )


SHAPES: dict[str, Callable[[_Sizes, Call], Shape]] = {
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gpt2": _gpt2,
    "bert": _bert,
    "vit": _vit,
}
"""`model_type` -> its sizes: the families of `cluster.engines.sharded`."""
