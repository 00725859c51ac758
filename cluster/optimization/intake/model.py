"""The model that the caller gave, whatever it came as: its card, its files, its torch module."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.config.model_card import Format, ModelCard, SignatureCard
from cluster.config.store import CARD_FILE, ModelStore
from cluster.config.yaml_file import read_section
from cluster.errors import ConfigError
from cluster.optimization.elsewhere.keras import is_keras, keras_to_onnx
from cluster.optimization.facts.precision import written_precision
from cluster.optimization.intake.files import graph_sha256, weights_sha256
from cluster.optimization.signature import (
    check_names,
    check_ranks,
    chosen_signature,
    exported_signature,
    is_batched,
    onnx_signature,
    parse_tensor,
)
from cluster.tensors import Array

if TYPE_CHECKING:
    from torch import nn

PICKLES = (".pkl", ".pickle", ".pth", ".bin", ".ckpt", ".joblib", ".dill")
WHAT_CAN_BE_GIVEN = (
    "a .onnx file, a .pt2 (torch.export) or .pt/.ts (TorchScript) file, a .keras or .h5 file or a "
    "SavedModel (where TensorFlow is), NAME or NAME/VERSION of the store, a folder with "
    "model.yaml, a Hugging Face directory, file.py:Class or a torch module"
)
_CLASS = re.compile(r"^(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)$")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GivenModel:
    """`card` with the artefact's own signature; its files lie in `folder`.

    `module` is the torch module when there is one (then `example` holds inputs of one row), and
    is the eager baseline. `sha256`: of the artefact with the weights beside it, or of the module's
    code and weights and of the graph that it was exported to.
    """

    name: str
    sha256: str
    card: ModelCard
    folder: Path
    module: nn.Module | None = None
    example: Mapping[str, Array] | None = None

    @property
    def onnx(self) -> Path | None:
        return self.folder / self.card.artefact if self.card.format == "onnx" else None


def open_model(
    given: str | Path | nn.Module,
    *,
    store: ModelStore,
    workspace: Path,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    example: Mapping[str, Array] | None = None,
    name: str = "",
) -> GivenModel:
    """`inputs` and `outputs` are `name:dtype:dims` where the model does not say; `example`: one row
    of inputs for a torch module, in the order of its arguments.

    Raises: ConfigError saying what is wrong and what can be given. Pickles are never loaded.
    """
    if not isinstance(given, str | Path):
        return _of_module(given, name or type(given).__name__.lower(), example, workspace)
    text, path = str(given), Path(given)
    matched = _CLASS.match(text)
    if matched and Path(matched["file"]).is_file():
        module = load_class(Path(matched["file"]), matched["name"])
        rows = example if example is not None else example_of(module, inputs)
        return _of_module(module, name or matched["name"].lower(), rows, workspace)
    if path.suffix.lower() in PICKLES and path.exists():
        raise ConfigError(
            f"{path}: a file of this kind may be a pickle, which runs code when it is loaded; it "
            f"is not opened. Export the model, then give {WHAT_CAN_BE_GIVEN}",
            file=text,
            key="format",
            value=path.suffix,
        )
    if is_keras(path):
        graph = workspace / "keras" / f"{path.stem}.onnx"
        keras_to_onnx(path, graph)
        return _of_file(graph, name, inputs, outputs)
    if path.is_file():
        return _of_file(path, name, inputs, outputs)
    if (path / CARD_FILE).is_file():
        return _of_stored(read_section(path / CARD_FILE, ModelCard), path, workspace)
    if path.is_dir() and (path / "config.json").is_file():
        return _of_hugging_face(path, workspace)
    if path.exists():
        raise ConfigError(f"{path}: cannot be opened; give {WHAT_CAN_BE_GIVEN}", file=text)
    wanted, _, version = text.partition("/")
    if store.versions(wanted):
        card = store.card(wanted, version)
        return _of_stored(card, store.folder(wanted, version), workspace)
    raise ConfigError(
        f"{text}: no such file, and no model of that name in the store {store.root}; give "
        f"{WHAT_CAN_BE_GIVEN}",
        file=text,
        key="model",
    )


def load_class(file: Path, class_name: str) -> nn.Module:
    """An instance of a torch class in a file of the caller's own: its code is run.

    Raises: ConfigError when the file cannot be imported or holds no such torch class.
    """
    from torch import nn

    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None, "a .py file has a loader"
    assert spec.loader is not None, "a .py file has a loader"
    code = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(code)
        module = getattr(code, class_name)()
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{file}:{class_name} cannot be made: {said}", file=str(file)) from None
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{file}:{class_name} is no torch.nn.Module", file=str(file))
    return module


def example_of(module: nn.Module, inputs: Sequence[str]) -> dict[str, Array]:
    """One row of random inputs by `name:dtype:dims`, else what the class's `example_inputs()` says.

    Raises: ConfigError when neither is there.
    """
    from cluster.optimization.intake.random_inputs import random_items

    if inputs:
        cards = [parse_tensor(each) for each in inputs]
        card = ModelCard(
            name="example",
            format="fake",
            signature=SignatureCard(inputs=cards, outputs=cards),
            batched=all(each.shape[:1] == [-1] for each in cards),
        )
        return random_items(card, 1)[0]
    makes = getattr(module, "example_inputs", None)
    if makes is None:
        raise ConfigError(
            f"{type(module).__name__}: its inputs are not known; give --input NAME:DATATYPE:DIMS, "
            "or let the class have example_inputs() that returns arrays by name",
            key="input",
        )
    return _rows(makes())


def _rows(example: object) -> dict[str, Array]:
    """Raises: ConfigError for what is no mapping of names to arrays."""
    if not isinstance(example, Mapping) or not example:
        raise ConfigError(
            f"example is a {type(example).__name__}; give one row of each input by its name, in "
            'the order of `forward`, as in {"x": rows[:1]}',
            key="example",
        )
    return {str(name): _array(value) for name, value in example.items()}


def _array(value: object) -> Array:
    import numpy as np
    import torch

    return value.numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def module_sha256(module: nn.Module) -> str:
    """Of the module's structure, the source of its classes (where found) and every weight."""
    digest = hashlib.sha256(repr(module).encode())
    for kind in sorted({type(each) for each in module.modules()}, key=lambda k: k.__qualname__):
        if not kind.__module__.startswith("torch."):
            try:
                digest.update(inspect.getsource(kind).encode())
            except (OSError, TypeError):
                # Written in a notebook or a shell: the structure and the weights must do.
                digest.update(kind.__qualname__.encode())
    for name, tensor in module.state_dict().items():
        import torch

        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # Bits, as numpy has no bfloat16.
        bits = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(bits.numpy().tobytes())
    return digest.hexdigest()


def _of_module(
    module: nn.Module, name: str, example: Mapping[str, Array] | None, workspace: Path
) -> GivenModel:
    from cluster.optimization.export.module import export_module

    rows = _rows(example) if example is not None else example_of(module, ())
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "model"
    folder = workspace / "given"
    folder.mkdir(parents=True, exist_ok=True)
    card = export_module(module.eval(), rows, folder, name=clean)
    # What it computes may hang on plain attributes, and on the names and sizes of its inputs.
    both = f"{module_sha256(module)} {graph_sha256(folder / card.artefact)}"
    return GivenModel(
        name=clean,
        sha256=hashlib.sha256(both.encode()).hexdigest(),
        card=card,
        folder=folder,
        module=module,
        example=dict(rows),
    )


def _of_file(path: Path, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> GivenModel:
    formats: dict[str, Format] = {
        ".onnx": "onnx", ".pt": "torchscript", ".ts": "torchscript", ".pt2": "torch_export",
    }  # fmt: skip
    format_ = formats.get(path.suffix.lower())
    if format_ is None:
        raise ConfigError(f"{path}: cannot be opened; give {WHAT_CAN_BE_GIVEN}", file=str(path))
    cards = [parse_tensor(each) for each in inputs], [parse_tensor(each) for each in outputs]
    match format_:
        case "onnx":
            found = onnx_signature(path)
            signature = chosen_signature(found, *cards, what=str(path))
            check_names(signature, found, what=str(path))
            check_ranks(path, [card.name for card in cards[0]])
        case "torch_export":
            signature = chosen_signature(exported_signature(path), *cards, what=str(path))
        case _:
            if not inputs or not outputs:
                raise ConfigError(
                    f"{path}: TorchScript does not say what it takes; give --input and --output as "
                    "NAME:DATATYPE:DIMS",
                    file=str(path),
                    key="input",
                )
            signature = SignatureCard(inputs=cards[0], outputs=cards[1])
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", name or path.stem).strip("-._") or "model"
    card = ModelCard(
        name=clean,
        format=format_,
        artefact=path.name,
        batched=is_batched(signature),
        signature=signature,
        precision=written_precision(path) if format_ == "onnx" else "fp32",
    )
    sha256 = weights_sha256(path, format_)
    return GivenModel(name=clean, sha256=sha256, card=card, folder=path.parent)


def _of_stored(card: ModelCard, folder: Path, workspace: Path) -> GivenModel:
    """A Hugging Face directory in the store is exported, as one outside it is."""
    if card.format == "huggingface":
        return _of_hugging_face(folder / card.artefact, workspace, name=card.name)
    if card.artefact and (folder / card.artefact).is_dir():
        raise ConfigError(
            f"{card.name} is format {card.format}, a folder that is served as it is", key="format"
        )
    return _of_card(card, folder)


def _of_card(card: ModelCard, folder: Path) -> GivenModel:
    if not card.artefact:
        raise ConfigError(
            f"{card.name} is format {card.format}, a class that is served as it is", key="format"
        )
    sha256 = weights_sha256(folder / card.artefact, card.format)
    return GivenModel(name=card.name, sha256=sha256, card=card, folder=folder)


def _of_hugging_face(directory: Path, workspace: Path, *, name: str = "") -> GivenModel:
    from cluster.optimization.encoder import export_encoder

    folder = workspace / "given"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    clean = name or re.sub(r"[^A-Za-z0-9._-]+", "-", directory.resolve().name).strip("-._")
    return _of_card(export_encoder(directory, folder, name=clean, version="1"), folder)
