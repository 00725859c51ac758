"""The files that make up one model: its artefact, weights beside it, what its card reads."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.config.model_card import Format, ModelCard
from cluster.config.store import sha256_of
from cluster.errors import ConfigError


def external_data(source: Path, format_: Format) -> list[Path]:
    """The files beside a graph that hold its weights: ONNX's large ones, all of OpenVINO's."""
    if format_ == "openvino":
        return [source.with_suffix(".bin")]
    if format_ != "onnx" or importlib.util.find_spec("onnx") is None:
        return []
    import onnx

    model = onnx.load(str(source), load_external_data=False)
    names = {
        entry.value
        for tensor in external_tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in names:
        if Path(name).name != name:
            raise ConfigError(
                f"{source}: its weights are in {name!r}; they must lie beside the graph",
                file=str(source),
            )
    return [source.parent / name for name in sorted(names)]


def external_tensors(model: Any) -> Iterator[Any]:
    """The tensors of an ONNX model whose numbers lie in another file, wherever the graph has them:
    its weights, constants, and those of the graphs inside loops and branches."""
    for graph in (model.graph, *model.functions):
        yield from _external_tensors(graph)


def _external_tensors(graph: Any) -> Iterator[Any]:
    # A function has nodes alone.
    found = list(getattr(graph, "initializer", ()))
    for node in graph.node:
        for attribute in node.attribute:
            found += [attribute.t, *attribute.tensors]
            for inner in (attribute.g, *attribute.graphs):
                yield from _external_tensors(inner)
    yield from (tensor for tensor in found if tensor.external_data)


def side_files(card: ModelCard, folder: Path) -> tuple[Path, ...]:
    """What the card's processing and classification read beside the artefact."""
    names = [
        getattr(card.preprocess, "tokenizer", None),
        getattr(card.postprocess, "labels", None),
        *(tensor.labels for tensor in card.signature.outputs),
    ]
    files = dict.fromkeys(folder / name for name in names if name and isinstance(name, str))
    return tuple(file for file in files if file.is_file())


def files_of(card: ModelCard, folder: Path) -> tuple[Path, ...]:
    """All that a copy of the model needs, the artefact first; nothing else that lies there."""
    artefact = folder / card.artefact
    every = (artefact, *external_data(artefact, card.format), *side_files(card, folder))
    return tuple(dict.fromkeys(every))


def weights_sha256(artefact: Path, format_: Format) -> str:
    """Of the artefact and of the weights beside it: the same graph may be given other weights.

    Raises: ConfigError when a file of weights is missing.
    """
    beside = external_data(artefact, format_)
    if not beside:
        return sha256_of(artefact)
    digest = hashlib.sha256(sha256_of(artefact).encode())
    for file in beside:
        if not file.is_file():
            raise ConfigError(
                f"{artefact}: its weights are in {file.name}, which is not beside it",
                file=str(file),
            )
        digest.update(f"{file.name} {sha256_of(file)}".encode())
    return digest.hexdigest()


def graph_sha256(path: Path) -> str:
    """Of an exported ONNX graph and its weights, without the exporter's notes on where in the
    code each node came from."""
    import onnx

    # Weights in a file beside it stay there: with them the graph may be larger than a message is.
    model = onnx.load(str(path), load_external_data=False)
    del model.metadata_props[:]
    graph = model.graph
    graph.ClearField("doc_string")
    parts: list[Any] = [graph, *graph.node, *graph.input, *graph.output, *graph.value_info]
    for part in parts:
        del part.metadata_props[:]
    for node in graph.node:
        node.ClearField("doc_string")
    digest = hashlib.sha256(model.SerializeToString(deterministic=True))
    for file in external_data(path, "onnx"):
        digest.update(sha256_of(file).encode())
    return digest.hexdigest()
