"""Where a client without a server works: its store, its cache, its folder; what opens models."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.client.backend import Backend
from cluster.client.embedded import EngineBackend
from cluster.client.values import is_number
from cluster.config.model_card import ModelCard
from cluster.config.placement import PlacementConfig
from cluster.config.store import CARD_FILE, ModelStore, default_root, seal, sha256_of
from cluster.config.yaml_file import read_section
from cluster.engines.cache.artefact_cache import ArtefactCache, cache_key
from cluster.errors import ConfigError
from cluster.models import MAX_THREADS
from cluster.optimization.cache.fingerprint import library_versions
from cluster.optimization.measure.variant import Variant
from cluster.tensors import Array

if TYPE_CHECKING:
    from torch import nn

GIB = 2**30


@dataclass(slots=True, kw_only=True)
class Workplace:
    """`close` removes the folder of what was made without a cache."""

    store: ModelStore
    cache: ArtefactCache
    device: str
    threads: int
    _temporary: tempfile.TemporaryDirectory[str] | None = None
    _num_folders: int = 0

    def new_folder(self) -> Path:
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(
                prefix="squadron-client-", ignore_cleanup_errors=True
            )
        self._num_folders += 1
        folder = Path(self._temporary.name) / str(self._num_folders)
        folder.mkdir()
        return folder

    def close(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()


def make_workplace(store: str | Path | None, device: str, threads: int) -> Workplace:
    """Raises: ConfigError for threads below 1 or above `MAX_THREADS`."""
    if not 1 <= threads <= MAX_THREADS:
        raise ConfigError(
            f"threads is {threads}; allowed: 1 to {MAX_THREADS}", key="threads", value=threads
        )
    root = Path(store) if store is not None else default_root()
    return Workplace(store=ModelStore(root), cache=ArtefactCache(), device=device, threads=threads)


def cache_in(cache_dir: str | Path, max_cache_size_gb: float) -> ArtefactCache:
    """Raises: ConfigError for a size that is not above 0, and a folder that cannot be written."""
    if not is_number(max_cache_size_gb) or not max_cache_size_gb > 0:
        raise ConfigError(
            f"max_cache_size_gb is {max_cache_size_gb!r}; allowed: above 0",
            key="max_cache_size_gb",
            value=max_cache_size_gb,
        )
    root = Path(cache_dir)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{root}: cannot be a cache: {error.strerror}", file=str(root), key="cache_dir"
        ) from None
    return ArtefactCache(root, max_bytes=max(1, int(max_cache_size_gb * GIB)))


def open_backend(
    model: str | Path | nn.Module,
    place: Workplace,
    *,
    use_cache: bool = True,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    example: Mapping[str, Array] | None = None,
    name: str = "",
) -> Backend:
    """What runs the model here: its own engine, torch for modules, stages for language models.

    Raises: ConfigError saying what is wrong and what can be given. Pickles are never loaded.
    """
    if not isinstance(model, str | Path):
        return _module(model, place, example, name)
    path = Path(model)
    if _is_class(str(model)):
        return _of_class(str(model), place, tuple(inputs), tuple(outputs), example, name)
    stored = _stored(path, place)
    if stored is not None:
        return _of_card(*stored, place)
    if path.is_dir() and (path / "config.json").is_file():
        return _of_directory(path, place, use_cache=use_cache)
    from cluster.optimization.intake.model import open_model

    given = open_model(
        model, store=place.store, workspace=place.new_folder(), inputs=inputs, outputs=outputs,
        name=name,
    )  # fmt: skip
    return _of_card(given.card, given.folder, place)


def open_staged(
    model: str | Path | nn.Module, place: Workplace, placement: PlacementConfig
) -> Backend:
    """The model cut as `placement` says. Raises: ConfigError."""
    from cluster.client.staged.backend import StagedBackend
    from cluster.client.staged.language import LanguageBackend
    from cluster.optimization.huggingface.directory import card_of
    from cluster.optimization.huggingface.intake import with_text

    path = Path(model) if isinstance(model, str | Path) else None
    stored = None if path is None or _is_class(str(path)) else _stored(path, place)
    if stored is not None:
        # Not opened whole first: it may be larger than what there is room for.
        card, folder = stored
    elif path is not None and path.is_dir() and (path / "config.json").is_file():
        # What it takes and gives is what `load_model` has of it.
        card, folder = with_text(card_of(path, name=path.resolve().name), path), path
    else:
        whole = open_backend(model, place)
        whole.close()
        if isinstance(whole, LanguageBackend):
            card, folder = whole.card, whole.folder
        elif isinstance(whole, EngineBackend):
            card, folder = whole.variant.card, whole.variant.folder
        else:
            raise ConfigError(
                f"{whole.name}: a torch module has no layers that are known; give an ONNX file or "
                "a Hugging Face directory",
                key="model",
            )
    if _is_language(card):
        return LanguageBackend(
            _directory(card, folder), name=card.name, threads=place.threads, placement=placement
        )
    return StagedBackend(card, folder, placement, threads=place.threads)


def _stored(path: Path, place: Workplace) -> tuple[ModelCard, Path] | None:
    """A version's folder, or NAME or NAME/VERSION of the store."""
    if path.is_dir() and (path / CARD_FILE).is_file():
        return read_section(path / CARD_FILE, ModelCard), path
    wanted, _, version = str(path).partition("/")
    if not path.exists() and place.store.versions(wanted):
        return place.store.card(wanted, version), place.store.folder(wanted, version)
    return None


def _is_language(card: ModelCard) -> bool:
    raw = card.raw_signature()
    has_logits = raw.output("logits") is not None and raw.input("input_ids") is not None
    return card.format == "causal_lm" or (card.format == "huggingface" and has_logits)


def _directory(card: ModelCard, folder: Path) -> Path:
    """A language model's artefact may be its file of weights, the directory's one file."""
    artefact = folder / card.artefact
    return artefact.parent if artefact.is_file() else artefact


def _of_card(card: ModelCard, folder: Path, place: Workplace) -> Backend:
    if _is_language(card):
        return _language(_directory(card, folder), card.name, place)
    variant = Variant(card=card, folder=folder)
    return EngineBackend(variant, device=place.device, threads=place.threads)


def _is_class(text: str) -> bool:
    file, colon, name = text.rpartition(":")
    return bool(colon) and name.isidentifier() and file.endswith(".py") and Path(file).is_file()


def _of_class(
    text: str,
    place: Workplace,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    example: Mapping[str, Array] | None,
    name: str,
) -> Backend:
    """A torch module, or with `outputs` a class of Squadron's Python engine."""
    file, _, class_name = text.rpartition(":")
    if outputs:
        from cluster.optimization.add import add_model

        store = ModelStore(place.new_folder())
        card = add_model(text, store, name or None, inputs=inputs, outputs=outputs)
        return _of_card(card, store.folder(card.name, card.version), place)
    from cluster.optimization.intake.model import example_of, load_class

    module = load_class(Path(file), class_name)
    rows = example if example is not None else example_of(module, inputs)
    return _module(module, place, rows, name)


def _module(
    module: nn.Module, place: Workplace, example: Mapping[str, Array] | None, name: str
) -> Backend:
    from torch import nn

    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"a {type(module).__name__} is no model; give a path, a name of the store or a "
            "torch.nn.Module",
            key="model",
            value=type(module).__name__,
        )
    if example is None and hasattr(module, "save_pretrained") and hasattr(module, "generate"):
        # Of transformers: its directory says all that is needed, and its layers can be cut.
        folder = place.new_folder()
        save: Any = module.eval().save_pretrained
        save(folder)
        return _language(folder, name or type(module).__name__.lower(), place)
    from cluster.client.torch.module import ModuleBackend

    return ModuleBackend(
        module, name=name, example=example, device=place.device, threads=place.threads
    )


def _of_directory(directory: Path, place: Workplace, *, use_cache: bool) -> Backend:
    from cluster.optimization.huggingface.families import GENERATING

    name = directory.resolve().name
    kind = json.loads((directory / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind in GENERATING:
        return _language(directory, name, place)
    if kind == "vit":
        from cluster.optimization.huggingface.directory import card_of

        return _of_card(card_of(directory, name=name), directory, place)
    card, folder = _exported(directory, place, use_cache=use_cache)
    return _of_card(card, folder, place)


def _exported(directory: Path, place: Workplace, *, use_cache: bool) -> tuple[ModelCard, Path]:
    """An encoder's directory as ONNX, out of the cache where it was exported before."""
    from cluster.optimization.encoder import export_encoder

    def build(folder: Path) -> None:
        seal(folder, export_encoder(directory, folder, name="encoder", version="1"))

    if not use_cache:
        folder = place.new_folder()
        build(folder)
    else:
        digest = hashlib.sha256()
        for file in sorted(path for path in directory.iterdir() if path.is_file()):
            digest.update(f"{file.name} {sha256_of(file)}".encode())
        key = cache_key(
            model_sha256=digest.hexdigest(),
            recipe={"name": "export_encoder"},
            libraries=library_versions(),
            hardware={},
        )
        folder = place.cache.get_or_build(key, build).folder
    return read_section(folder / CARD_FILE, ModelCard), folder


def _language(directory: Path, name: str, place: Workplace) -> Backend:
    from cluster.client.staged.language import LanguageBackend

    return LanguageBackend(directory, name=name, threads=place.threads)
