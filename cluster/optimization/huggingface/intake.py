"""A Hugging Face directory of one's own becomes a version in the store."""

from __future__ import annotations

import math
from pathlib import Path

from cluster.config.model_card import (
    ClassifyPostprocess,
    MeanPoolPostprocess,
    ModelCard,
    Provenance,
    TensorCard,
    TextPreprocess,
)
from cluster.errors import ConfigError
from cluster.optimization.huggingface.directory import card_of
from cluster.optimization.huggingface.families import (
    Config,
    DirectoryFormat,
    format_of,
    read_config,
)
from cluster.optimization.huggingface.files import check_weights, copy_directory, weight_files
from cluster.optimization.huggingface.vision import image_processing
from cluster.optimization.progress import Progress
from cluster.placement.estimates.transformers import Call, estimate

LABELS = "labels.txt"


def checked_format(source: Path, wanted: str = "") -> DirectoryFormat:
    """What becomes of the directory (see `format_of`), its weights looked at.

    Raises: ConfigError for what is not supported, and for weights that do not fit.
    """
    format_ = format_of(source, wanted)
    weight_files(source)
    if format_ == "huggingface":
        check_weights(source)
    return format_


def take_in(
    source: Path,
    folder: Path,
    format_: DirectoryFormat,
    *,
    name: str,
    version: str,
    progress: Progress,
) -> ModelCard:
    """Fill the version's folder. Raises: ConfigError."""
    origin = Provenance(file=str(source), recipe="added")
    match format_:
        case "onnx":
            from cluster.optimization.encoder import export_encoder

            with progress.step(f"{name}: export to ONNX"):
                return export_encoder(source, folder, name=name, version=version)
        case "causal_lm":
            from cluster.optimization.language.causal_lm import causal_lm_card

            copy_directory(source, folder, progress)
            return causal_lm_card(folder, name=name, version=version, provenance=origin)
        case "huggingface":
            # Before gigabytes are copied.
            card = _processed(card_of(source, name=name, version=version), source, folder)
            copy_directory(source, folder, progress)
            return card.model_copy(update={"provenance": origin})


def _processed(card: ModelCard, source: Path, folder: Path) -> ModelCard:
    """The card with what comes before and after the tensors, as far as the directory says it."""
    (output,) = card.signature.outputs
    if card.signature.inputs[0].name == "pixel_values":
        labels = _write_labels(source, folder)
        output = output.model_copy(update={"labels": labels})
        signature = card.signature.model_copy(update={"outputs": [output]})
        card = card.model_copy(update={"signature": signature})
        return _with_pictures(card, source, output)
    return with_text(card, source)


def with_text(card: ModelCard, directory: Path) -> ModelCard:
    """An encoder's card with text in and one vector out, where the directory has a tokenizer: as
    its export to ONNX is served. How a model is run does not change what clients send."""
    output = card.signature.outputs[0]
    if output.name == "last_hidden_state" and (directory / "tokenizer.json").is_file():
        update = {
            "preprocess": TextPreprocess(),
            "postprocess": MeanPoolPostprocess(input=output.name),
        }
        return card.model_copy(update=update)
    return card


def _with_pictures(card: ModelCard, source: Path, output: TensorCard) -> ModelCard:
    _, channels, _, side = card.signature.inputs[0].shape
    preprocess = image_processing(source, side)
    if preprocess is None:
        return card
    if channels != 3:
        raise ConfigError(
            f"{source / 'config.json'}: num_channels is {channels}; pictures are read as RGB, 3",
            file=str(source / "config.json"),
            key="num_channels",
            value=channels,
            allowed="3",
        )
    postprocess = (
        ClassifyPostprocess(input=output.name, labels=LABELS, top_k=min(5, output.shape[-1]))
        if output.labels
        else None
    )
    return card.model_copy(update={"preprocess": preprocess, "postprocess": postprocess})


def _write_labels(source: Path, folder: Path) -> str:
    """The classes' names, a line each, in their order; "" where the config has none."""
    named = read_config(source).get("id2label") or {}
    try:
        by_number = {int(number): " ".join(str(name).split()) for number, name in named.items()}
        lines = [by_number[number] for number in range(len(by_number))]
    except (ValueError, KeyError, AttributeError):
        file = source / "config.json"
        raise ConfigError(
            f"{file}: id2label: not the numbers from 0 on with a name each",
            file=str(file),
            key="id2label",
        ) from None
    if not lines:
        return ""
    (folder / LABELS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return LABELS


def ways_to_serve(card: ModelCard, folder: Path) -> tuple[str, ...]:
    """Entries of a config's `variants` for a version in the store."""
    name = card.name
    lines = [f"{name}: {{source: {name}}}"]
    if card.format != "huggingface":
        return tuple(lines)
    if card.signature.inputs[0].name == "input_ids" and card.raw_signature().output("logits"):
        lines.append(f"{name}-tokens: {{source: {name}, options: {{task: generate}}}}")
    layers = "{strategy: layer, shards: 2}}  # or pipeline"
    lines.append(f"{name}-layer2: {{source: {name}, placement: {layers}")
    degree = next(iter(tensor_degrees(read_config(folder))), None)
    if degree is not None:
        cut = f"{{strategy: tensor, shards: {degree}}}}}"
        lines.append(f"{name}-tensor{degree}: {{source: {name}, placement: {cut}")
    return tuple(lines)


def tensor_degrees(config: Config) -> tuple[int, ...]:
    """Above 1, those that divide every thing that a tensor cut divides."""
    common = math.gcd(*(count for _, count in estimate("model", config, Call()).splits))
    return tuple(degree for degree in range(2, common + 1) if common % degree == 0)
