"""Files that a caller sent, checked and put into a store of their own. Never code, only ONNX.

A graph is data: it names operators that the runtime has. What can name anything else (libraries of
operators, files of weights, compiled contexts) is refused before the runtime sees the file.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.config.store import ModelStore
from cluster.config.variant import VariantConfig
from cluster.errors import ConfigError, InvalidRequest
from cluster.optimization.triton.artefacts import store_version
from cluster.optimization.triton.complete import complete
from cluster.optimization.triton.repository import TritonModel, chosen_versions
from cluster.protocols.triton.findings import Findings
from cluster.protocols.triton.model_config import parse_json
from cluster.protocols.triton.signature import signature_of
from cluster.protocols.triton.uploads import UploadedFile
from cluster.protocols.triton.variant import kind_of, variant_section

SANDBOX = ".uploads"
"""Folder of a store; names that begin with a dot are no models."""
_KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_FILE_OPERATORS = frozenset({"EPContext"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """`store`: the folder that became the model's store. `lost`: what of the configuration has no
    effect here, and why."""

    variant: VariantConfig
    store: str
    lost: tuple[str, ...] = ()


def store_upload(
    model: str, config_json: str, files: tuple[UploadedFile, ...], root: Path
) -> Uploaded:
    """Raises: InvalidRequest saying what is refused and why."""
    if not config_json:
        raise InvalidRequest("load parameter 'config' must be specified for 'file:' parameters")
    for file in files:
        if not file.name.endswith(".onnx"):
            raise InvalidRequest(
                f"file {file.name!r}: only .onnx is taken from a caller, never code (Python, "
                "TorchScript, torch.export, libraries) and no other files"
            )
        check_graph(file.content, file.name)
    digest = hashlib.sha256(config_json.encode())
    for file in sorted(files, key=lambda each: (each.version, each.name)):
        digest.update(f"\0{file.version}/{file.name}\0".encode())
        digest.update(hashlib.sha256(file.content).digest())
    store = ModelStore(root / SANDBOX / f"{model}-{digest.hexdigest()[:16]}")
    store.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store.root, prefix=".incoming-") as incoming:
        for file in files:
            path = Path(incoming) / str(file.version) / file.name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(file.content)
        return _stored(model, config_json, Path(incoming), store)


def _stored(model: str, config_json: str, folder: Path, store: ModelStore) -> Uploaded:
    findings = Findings(model=model)
    config = parse_json(config_json)
    there = sorted(int(path.name) for path in folder.iterdir())
    versions = chosen_versions(config.version_policy, there, findings)
    if not versions:
        raise InvalidRequest("the version policy chooses none of the versions sent")
    given = TritonModel(
        name=model, folder=folder, config=config, versions=versions[-1:], is_complete_batch=False
    )
    try:
        given = replace(given, config=complete(given, reads_openvino=False))
        kind = kind_of(given.config, findings)
        section = variant_section(given.config, findings)
        signature = signature_of(given.config, findings)
        if kind is not None and kind.format != "onnx":
            findings.refused("backend", "only ONNX models are taken from a caller")
        if not findings.has_refused() and kind is not None and signature is not None:
            store_version(given, versions[-1], kind, signature, store, findings)
    except ConfigError as error:
        raise InvalidRequest(_without_paths(error.message, folder)) from None
    refused = [each for each in findings.found if each.outcome == "refused"]
    if refused:
        told = "; ".join(f"{each.field}: {each.reason}" for each in refused)
        raise InvalidRequest(_without_paths(told, folder))
    source = f"{model}/{versions[-1]}"
    variant = VariantConfig.model_validate({"source": source, "colocate": "never", **section})
    lost = tuple(
        f"{each.field}: {each.reason}" for each in findings.found if each.outcome == "dropped"
    )
    return Uploaded(variant=variant, store=str(store.root), lost=lost)


def remove_uploads(root: Path, model: str, kept: Collection[str]) -> None:
    """Remove what was sent for a model but the stores in `kept`."""
    for folder in (root / SANDBOX).glob(f"{model}-*"):
        digest = folder.name.removeprefix(f"{model}-")
        if re.fullmatch(r"[0-9a-f]{16}", digest) and str(folder) not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def _without_paths(text: str, folder: Path) -> str:
    """Where the server keeps its files is nobody's business."""
    return text.replace(f"{folder}/", "")


def check_graph(content: bytes, name: str) -> None:
    """Raises: InvalidRequest for a file that is no ONNX model, or that reaches out of itself."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise InvalidRequest("files cannot be checked here: package onnx is missing") from None
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        raise InvalidRequest(f"file {name!r} is no ONNX model") from None
    if not model.graph.node and not model.graph.output:
        raise InvalidRequest(f"file {name!r} is no ONNX model")
    own = {function.domain for function in model.functions}
    for message in _below(model):
        kind = message.DESCRIPTOR.name
        if kind == "TensorProto" and (message.external_data or message.data_location):
            raise InvalidRequest(f"file {name!r}: weights in other files are not taken")
        if kind != "NodeProto":
            continue
        if message.op_type in _FILE_OPERATORS:
            raise InvalidRequest(f"file {name!r}: operator {message.op_type} reads other files")
        if message.domain not in _KNOWN_DOMAINS | own:
            raise InvalidRequest(
                f"file {name!r}: operators of {message.domain[:60]!r} need a library, which is "
                "never loaded"
            )


def _below(message: Any) -> Iterator[Any]:
    """Every message inside a message: subgraphs, attributes, functions and whatever comes."""
    waiting = [message]
    while waiting:
        found = waiting.pop()
        yield found
        for field, value in found.ListFields():
            if field.message_type is None:
                continue
            if hasattr(value, "ListFields"):
                waiting.append(value)
            else:
                waiting.extend(value)
