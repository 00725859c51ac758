"""TorchScript and torch.export programs as ONNX graphs with their torch module beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cluster.errors import ConfigError
from cluster.optimization.export.module import export_module
from cluster.optimization.intake.model import GivenModel
from cluster.optimization.intake.random_inputs import random_items

if TYPE_CHECKING:
    from torch import nn


def to_graph(given: GivenModel, workspace: Path) -> GivenModel:
    """The same model as an ONNX graph that keeps the names of inputs and outputs.

    Raises: ConfigError for a format that cannot be turned into one.
    """
    module = load_program(given)
    (example,) = random_items(given.card, 1)
    folder = workspace / "graph"
    folder.mkdir(parents=True, exist_ok=True)
    card = export_module(module, example, folder, name=given.name)
    rename_outputs(folder / card.artefact, [each.name for each in given.card.signature.outputs])
    return replace(
        given,
        card=given.card.model_copy(
            update={"format": "onnx", "artefact": card.artefact, "batched": card.batched}
        ),
        folder=folder,
    )


def rename_outputs(path: Path, wanted: Sequence[str]) -> None:
    """Give the first outputs of an ONNX file these names, wherever the graph uses them. Weights in
    a file beside it stay as they are."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    renamed = {output.name: name for output, name in zip(model.graph.output, wanted, strict=False)}
    for node in model.graph.node:
        for index, each in enumerate(node.output):
            node.output[index] = renamed.get(each, each)
        for index, each in enumerate(node.input):
            node.input[index] = renamed.get(each, each)
    for output in model.graph.output:
        output.name = renamed.get(output.name, output.name)
    path.write_bytes(model.SerializeToString())


def load_program(given: GivenModel) -> nn.Module:
    """The torch module of a `.pt2` or TorchScript file. Raises: ConfigError for another format."""
    import torch

    from cluster.engines.pt2_archive import refuse_pickles

    file = given.folder / given.card.artefact
    match given.card.format:
        case "torch_export":
            refuse_pickles(file)
            try:
                return cast("nn.Module", torch.export.load(file).module())
            except Exception as error:
                raise _unreadable(file, "a torch.export program", error) from None
        case "torchscript":
            try:
                loaded = torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]
            except Exception as error:
                raise _unreadable(file, "a TorchScript program", error) from None
            return cast("nn.Module", loaded)
        case other:
            raise ConfigError(
                f"format {other} cannot be turned into a graph", key="format", value=other
            )


def _unreadable(file: Path, what: str, error: Exception) -> ConfigError:
    said = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return ConfigError(
        f"{file}: not {what} ({said}). Weights or a module that torch.save wrote are a pickle, "
        "which is not opened: give the class, as in my_net.py:Net, and let it load its weights",
        file=str(file),
        key="model",
    )
