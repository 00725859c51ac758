"""Put a model file, directory or class of one's own into the store."""

from __future__ import annotations

import importlib.util
import re
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.config.model_card import Format, ModelCard, Provenance, SignatureCard, TensorCard
from cluster.config.store import ModelStore, new_version, seal, sha256_of
from cluster.errors import ConfigError
from cluster.optimization.facts.precision import written_precision
from cluster.optimization.intake.files import external_data
from cluster.optimization.intake.python_class import check_methods
from cluster.optimization.intake.trial import try_zeros
from cluster.optimization.progress import Progress, Silent
from cluster.optimization.signature import (
    check_names,
    chosen_signature,
    exported_signature,
    is_batched,
    onnx_signature,
    parse_tensor,
)

FORMATS_BY_SUFFIX: dict[str, Format] = {
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".ts": "torchscript",
    ".pt2": "torch_export",
}
WHAT_CAN_BE_ADDED = (
    ".onnx, .pt or .ts (TorchScript), .pt2 (torch.export), a Hugging Face directory, "
    "file.py:Class or module:Class"
)
_CLASS = re.compile(r"^(?P<where>.+):(?P<name>[A-Za-z_]\w*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """Everything the caller said about the model."""

    name: str
    version: str
    inputs: tuple[TensorCard, ...]
    outputs: tuple[TensorCard, ...]


def add_model(
    path: str | Path,
    store: ModelStore,
    name: str | None = None,
    version: str | None = None,
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    format_: str = "",
    progress: Progress | None = None,
) -> ModelCard:
    """Copy (or export) a model into the store and return its card.

    `path`: a file, a Hugging Face directory, `file.py:Class` or `module:Class`. `name` defaults to
    the file's own, `version` to the next free number. `inputs` and `outputs` are
    `name:dtype:dims` (as in `image:FP32:-1,3,224,224`), needed where the artefact does not say
    (TorchScript, classes). `format_`: what a Hugging Face directory becomes, where it could be
    several things (`huggingface.families.format_of`). The same bytes under the same name and
    signature are not stored twice: the version that is there is returned.

    Raises: ConfigError saying what is wrong with the path, the format, the signature or the name.
    """
    text = str(path)
    given = ([parse_tensor(each) for each in flags or ()] for flags in (inputs, outputs))
    input_cards, output_cards = (tuple(cards) for cards in given)
    matched = _CLASS.match(text)
    if format_ and not Path(text).is_dir():
        raise ConfigError(
            f"{text}: --format is for a Hugging Face directory; other files say it themselves",
            key="format",
            value=format_,
        )
    if matched and not Path(text).exists():
        where, class_name = matched["where"], matched["name"]
        own_name = f"{Path(where).stem.split('.')[-1]}-{class_name}".lower()
        wanted = _wanted(name or own_name, version or "", input_cards, output_cards)
        return _add_class(where, class_name, store, wanted)
    source = Path(path)
    if not source.exists():
        raise ConfigError(f"{source}: no such file or directory", file=text)
    wanted = _wanted(name or _name_of(source), version or "", input_cards, output_cards)
    if source.is_dir():
        return _add_directory(source, store, wanted, format_, progress or Silent())
    return _add_file(source, store, wanted)


def _add_file(source: Path, store: ModelStore, wanted: _Wanted) -> ModelCard:
    format_ = FORMATS_BY_SUFFIX.get(source.suffix.lower())
    if format_ is None:
        raise ConfigError(
            f"{source}: cannot tell what this is; can be added: {WHAT_CAN_BE_ADDED}",
            file=str(source),
            key="format",
            value=source.suffix,
            allowed=WHAT_CAN_BE_ADDED,
        )
    found = _read_signature(source, format_)
    signature = chosen_signature(found, wanted.inputs, wanted.outputs, what=str(source))
    if format_ == "onnx" and found is not None:
        check_names(signature, found, what=str(source))
    card = _card(wanted, format_, source.name, signature, source)
    return _store(card, store, wanted, [source, *external_data(source, format_)])


def _read_signature(source: Path, format_: Format) -> SignatureCard | None:
    match format_:
        case "onnx":
            return onnx_signature(source)
        case "torch_export":
            return exported_signature(source)
        case _:
            _check_torchscript(source)
            return None


def _check_torchscript(source: Path) -> None:
    import torch

    try:
        with warnings.catch_warnings():
            # TorchScript is deprecated in favour of torch.export; files of it are still served.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.jit")
            warnings.filterwarnings("ignore", r".*torch\.jit\.load.* is deprecated")
            torch.jit.load(str(source), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{source}: not a TorchScript file. A state dict or a pickled module cannot be served: "
            f"save it with torch.jit.save or torch.export.save ({type(error).__name__}: "
            f"{first_line})",
            file=str(source),
        ) from error


def _add_directory(
    source: Path, store: ModelStore, wanted: _Wanted, format_: str, progress: Progress
) -> ModelCard:
    from cluster.optimization.huggingface.intake import checked_format, take_in

    chosen = checked_format(source, format_)
    if wanted.inputs or wanted.outputs:
        raise ConfigError(
            f"{source}: a Hugging Face directory says itself what it takes and gives; leave out "
            "--input and --output",
            key="input",
        )
    version = wanted.version or _next_version(store, wanted.name)
    _refuse_existing(store, wanted.name, version)
    with new_version(store.root, wanted.name, version) as folder:
        card = take_in(source, folder, chosen, name=wanted.name, version=version, progress=progress)
        return seal(folder, card)


def _add_class(where: str, class_name: str, store: ModelStore, wanted: _Wanted) -> ModelCard:
    """`file.py:Class` is copied into the store; `module:Class` is imported where it is served."""
    what = f"{where}:{class_name}"
    signature = chosen_signature(None, wanted.inputs, wanted.outputs, what=what)
    if not where.endswith(".py"):
        if not _module_exists(where):
            raise ConfigError(f"{what}: no module {where!r} can be imported", file=where)
        card = _card(wanted, "python", "", signature, Path(where))
        return _store(card.model_copy(update={"python_class": what}), store, wanted, [])
    source = Path(where)
    if not source.is_file():
        raise ConfigError(f"{source}: no such file", file=str(source))
    streams = check_methods(source.read_text(encoding="utf-8"), class_name, str(source))
    card = _card(wanted, "python", source.name, signature, source)
    named = {"python_class": f"{source.name}:{class_name}", "decoupled": streams}
    return _store(card.model_copy(update=named), store, wanted, [source])


def _module_exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        # find_spec imports parents, which may themselves be absent.
        return False


def _card(
    wanted: _Wanted, format_: Format, artefact: str, signature: SignatureCard, source: Path
) -> ModelCard:
    return ModelCard(
        name=wanted.name,
        version=wanted.version or "1",
        format=format_,
        artefact=artefact,
        batched=is_batched(signature),
        signature=signature,
        precision=written_precision(source) if format_ == "onnx" else "fp32",
        provenance=Provenance(file=str(source), recipe="added"),
    )


def _store(card: ModelCard, store: ModelStore, wanted: _Wanted, files: list[Path]) -> ModelCard:
    same = _same_model(card, store, files)
    if same is not None and wanted.version in ("", same.version):
        return same
    version = wanted.version or _next_version(store, card.name)
    _refuse_existing(store, card.name, version)
    with new_version(store.root, card.name, version) as folder:
        for file in files:
            if not file.is_file():
                raise ConfigError(f"{file}: missing, and the model needs it", file=str(file))
            shutil.copyfile(file, folder / file.name)
        if card.format != "python":  # a class runs only where it is served
            try_zeros(card, folder, card.provenance.file)
        return seal(folder, card.model_copy(update={"version": version}))


def _same_model(card: ModelCard, store: ModelStore, files: list[Path]) -> ModelCard | None:
    if not files:
        return None
    digest = sha256_of(files[0])
    for there in store.versions(card.name):
        same_place = card.model_copy(
            update={"sha256": digest, "version": there.version, "provenance": there.provenance}
        )
        folder = store.folder(there.name, there.version)
        # The same graph may come with other weights beside it.
        if same_place == there and all(_is_same(file, folder / file.name) for file in files[1:]):
            return there
    return None


def _is_same(file: Path, there: Path) -> bool:
    return file.is_file() and there.is_file() and sha256_of(file) == sha256_of(there)


def _next_version(store: ModelStore, name: str) -> str:
    versions = [int(card.version) for card in store.versions(name)]
    return str(max(versions, default=0) + 1)


def _refuse_existing(store: ModelStore, name: str, version: str) -> None:
    if store.has(name, version):
        raise ConfigError(
            f"{name} version {version} is in the store {store.root} already; versions are not "
            "overwritten: leave out --version for the next number",
            key="version",
            value=version,
        )


def _wanted(
    name: str, version: str, inputs: tuple[TensorCard, ...], outputs: tuple[TensorCard, ...]
) -> _Wanted:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(
            f"{name!r} cannot be a model's name: letters, digits, '.', '_' and '-', beginning with "
            "a letter or digit; choose one with --name",
            key="name",
            value=name,
        )
    if version and not version.isdecimal():
        raise ConfigError(f"version {version!r}: a whole number is needed", key="version")
    return _Wanted(name=name, version=version, inputs=inputs, outputs=outputs)


def _name_of(source: Path) -> str:
    stem = source.resolve().name if source.is_dir() else source.stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")
