"""One version of a Triton model into the store: artefact, labels and card."""

from __future__ import annotations

import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.config.model_card import ModelCard, Provenance, SignatureCard
from cluster.config.store import ModelStore, new_version, seal, sha256_of
from cluster.errors import ConfigError
from cluster.optimization.intake.files import external_data
from cluster.optimization.triton.complete import onnx_file
from cluster.optimization.triton.repository import TritonModel
from cluster.protocols.triton.findings import Findings
from cluster.protocols.triton.signature import ragged_inputs
from cluster.protocols.triton.variant import Kind

_INDEXED = re.compile(r".+__(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """`is_new`: false when the same version was in the store already."""

    name: str
    version: str
    folder: Path
    is_new: bool


def store_version(
    model: TritonModel,
    version: int,
    kind: Kind,
    signature: SignatureCard,
    store: ModelStore,
    findings: Findings,
) -> Stored | None:
    """None (and a finding) when a file is missing or the artefact does not fit the configuration.

    Raises: ConfigError when another model of this name and version is in the store.
    """
    source = model.folder / str(version) / kind.file
    if kind.format == "onnx":
        source = onnx_file(source)
    try:
        signature = _checked(source, kind, signature)
        files = [source, *external_data(source, kind.format), *_labels(model, signature)]
        missing = [file for file in files if not file.is_file()]
    except ConfigError as error:
        findings.refused(f"version {version}", error.message)
        return None
    if missing:
        findings.refused(f"version {version}", f"{missing[0]} is missing")
        return None
    card = ModelCard(
        name=model.name,
        version=str(version),
        format=kind.format,
        artefact=source.name,
        batched=model.config.max_batch_size > 0 and not ragged_inputs(model.config),
        signature=signature,
        provenance=Provenance(file=str(source), recipe="imported from a Triton model repository"),
    )
    return _stored(card, files, store)


def _stored(card: ModelCard, files: list[Path], store: ModelStore) -> Stored:
    if store.has(card.name, card.version):
        there = store.card(card.name, card.version)
        same = card.model_copy(
            update={"sha256": sha256_of(files[0]), "provenance": there.provenance}
        )
        if same != there:
            raise ConfigError(
                f"another {card.name} version {card.version} is in the store {store.root} already; "
                "versions are not overwritten: remove its folder or import into another --store",
                key="version",
                value=card.version,
            )
        folder = store.folder(card.name, card.version)
        return Stored(name=card.name, version=card.version, folder=folder, is_new=False)
    with new_version(store.root, card.name, card.version) as folder:
        for file in files:
            shutil.copyfile(file, folder / file.name)
        seal(folder, card)
    folder = store.folder(card.name, card.version)
    return Stored(name=card.name, version=card.version, folder=folder, is_new=True)


def _labels(model: TritonModel, signature: SignatureCard) -> list[Path]:
    """Label files lie beside the configuration."""
    names = dict.fromkeys(card.labels for card in signature.outputs if card.labels)
    return [model.folder / name for name in names]


def _checked(source: Path, kind: Kind, signature: SignatureCard) -> SignatureCard:
    """The signature in the artefact's order. Raises: ConfigError where the two do not fit."""
    if not source.is_file():
        raise ConfigError(f"{source} is missing", file=str(source))
    if kind.format == "onnx":
        from cluster.optimization.signature import check_names, onnx_signature

        check_names(signature, onnx_signature(source), what=str(source))
        return signature
    if kind.format == "openvino":
        from cluster.optimization.signature import check_names, openvino_signature

        found = openvino_signature(source)
        check_names(signature, found, what=str(source))
        _check_sizes(signature, found, source)
        return signature
    inputs = [card.name for card in signature.inputs]
    outputs = [card.name for card in signature.outputs]
    order = {name: index for index, name in enumerate(_input_order(source, inputs))}
    indexed = {name: int(match[1]) for name in outputs if (match := _INDEXED.fullmatch(name))}
    return SignatureCard(
        inputs=sorted(signature.inputs, key=lambda card: order[card.name]),
        outputs=sorted(signature.outputs, key=lambda card: indexed.get(card.name, 0))
        if len(indexed) == len(outputs)
        else signature.outputs,
    )


def _check_sizes(signature: SignatureCard, found: SignatureCard, source: Path) -> None:
    """OpenVINO gives a graph's sizes no way out. Raises: ConfigError for one that is fixed in the
    graph and free in the configuration, as a batch is with `max_batch_size`."""
    own = {card.name: card.shape for card in found.inputs}
    for card in signature.inputs:
        shape = own[card.name]
        if len(shape) != len(card.shape) or any(
            is_ != -1 and said != is_ for said, is_ in zip(card.shape, shape, strict=True)
        ):
            raise ConfigError(
                f"{source}: input {card.name!r} is {shape} in the graph and {card.shape} in the "
                "configuration (with max_batch_size, -1 comes first): export it with these sizes "
                "free, or set max_batch_size: 0",
                file=str(source),
            )


def _input_order(source: Path, names: list[str]) -> list[str]:
    """TorchScript takes inputs by position: `NAME__<index>` says it, else forward's own arguments.

    Raises: ConfigError when neither does.
    """
    indexed = {name: int(match[1]) for name in names if (match := _INDEXED.fullmatch(name))}
    if len(indexed) == len(names):
        return sorted(names, key=lambda name: indexed[name])
    arguments = _forward_arguments(source)
    if set(names) == set(arguments):
        return arguments
    if len(names) == 1:
        return names
    raise ConfigError(
        f"{source}: which of forward's arguments ({', '.join(arguments)}) the inputs "
        f"{', '.join(names)} are is not said: name them so, or NAME__0, NAME__1, ...",
        file=str(source),
    )


def _forward_arguments(source: Path) -> list[str]:
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.jit")
        warnings.filterwarnings("ignore", r".*torch\.jit\.load.* is deprecated")
        try:
            module: Any = torch.jit.load(str(source), map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise ConfigError(f"{source}: not a TorchScript file: {first_line}") from None
    return [
        argument.name for argument in module.forward.schema.arguments if argument.name != "self"
    ]
