"""What the store says of a configured variant on this machine, and whether it can be served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.config.language.settings import LanguageConfig
from cluster.config.model_card import ClassifyPostprocess, ModelCard, TextPreprocess
from cluster.config.sequences import SequencesConfig
from cluster.config.store import ModelStore
from cluster.config.variant import VariantConfig
from cluster.engines.fit import check_fit
from cluster.engines.language.fit import check_language, with_draft
from cluster.engines.sharded.generate import generating
from cluster.engines.table import check_installed
from cluster.errors import ConfigError
from cluster.models import EngineName
from cluster.optimization.remote.mirror import MirroredStore, RemoteVersion
from cluster.processing.padding import Padding
from cluster.processing.pipeline import ragged_of
from cluster.routing.cache_key import digest_of
from cluster.routing.colocation import Colocation, colocate
from cluster.routing.table import VariantFacts
from cluster.tensors import Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The model card of a variant, the folder of its artefact and the engine that will run it.
    `remote`: where other nodes get it from; None for a folder that all of them have. `llm`: how a
    language model is run, its draft model's name in the store as a folder."""

    card: ModelCard
    folder: Path
    engine: EngineName
    remote: RemoteVersion | None = None
    llm: LanguageConfig | None = None


def origin_of(name: str, variant: VariantConfig, store: ModelStore) -> Origin | ConfigError:
    """The error instead of an origin only for an optional variant, which then is unavailable."""
    remote: RemoteVersion | None = None
    try:
        if variant.optional and variant.engine is not None:
            # A model that nobody can run here is not looked for in the store.
            check_installed(variant.engine)
        if variant.card is not None:
            card, folder = variant.card, Path.cwd()
        else:
            source, _, version = (variant.source or "").partition("/")
            card = store.card(source, version)
            folder = store.folder(source, card.version)
            if isinstance(store, MirroredStore):
                remote = store.remote(source, card.version)
        engine = check_fit(card, variant.engine, variant.device)
        card = generating(card, variant.options)
        llm = variant.llm
        if llm is not None:
            check_language(llm, card, folder)
            llm = with_draft(llm, store)
    except ConfigError as error:
        if variant.optional:
            return error
        raise ConfigError(f"variants.{name}: {error.message}", **error.details) from None
    return Origin(card=card, folder=folder, engine=engine, remote=remote, llm=llm)


def facts_of(name: str, variant: VariantConfig, origin: Origin | ConfigError) -> VariantFacts:
    if isinstance(origin, ConfigError):
        return VariantFacts(
            version="1",
            platform="unavailable",
            backend="",
            signature=Signature(inputs=(), outputs=()),
            is_batched=False,
            unavailable=origin.message,
        )
    card = origin.card
    processed = variant.processed
    signature = card.public_signature() if processed else card.raw_signature()
    if variant.sequences is not None:
        signature = _of_sequences(name, variant.sequences, card)
    if variant.batching.ragged is not None:
        signature = ragged_of(card, variant.batching.ragged).signature
    _check_lengths(name, variant, card)
    if variant.preprocess_cache.enabled and card.preprocess is None:
        raise ConfigError(
            f"variants.{name}.preprocess_cache: {card.name} has no preprocessing",
            key=f"variants.{name}.preprocess_cache.enabled",
            value="True",
            allowed="false, or a card with `preprocess`",
        )
    return VariantFacts(
        version=card.version,
        platform=_platform(origin.engine, card.format),
        backend=origin.engine,
        signature=signature,
        is_batched=card.batched or variant.batching.ragged is not None,
        is_decoupled=card.decoupled,
        labels=_labels(card, origin.folder) if processed else (),
        is_colocated=colocation_of(variant, origin).is_colocated,
        output_labels={} if processed and card.postprocess else _output_labels(origin),
        fingerprint=digest_of(
            [card.model_dump_json(), origin.engine, processed, sorted(variant.options.items())]
        ),
        is_language=card.format == "causal_lm",
        adapters=_adapters(variant),
        adapter_folder=_adapter_folder(variant),
        max_model_len=_max_tokens(variant, card),
        tokenizer=(
            str(origin.folder / card.preprocess.tokenizer)
            if isinstance(card.preprocess, TextPreprocess)
            else ""
        ),
        artefact_bytes=_artefact_bytes(origin),
        made=(card.precision, card.provenance.recipe),
    )


def _max_tokens(variant: VariantConfig, card: ModelCard) -> int:
    """0 where the card and the configuration do not say."""
    if variant.llm is not None:
        return variant.llm.max_model_len
    return card.preprocess.max_tokens if isinstance(card.preprocess, TextPreprocess) else 0


def _check_lengths(name: str, variant: VariantConfig, card: ModelCard) -> None:
    """Raises: ConfigError for bounds of lengths that nothing has."""
    is_text = variant.processed and isinstance(card.preprocess, TextPreprocess)
    if variant.batching.buckets and not is_text and not variant.batching.padding:
        raise ConfigError(
            f"variants.{name}.batching.buckets: {card.name} takes no text; with `padding` they "
            "bound the lengths of its inputs",
            key=f"variants.{name}.batching.buckets",
        )
    if variant.batching.padding:
        # Built and thrown away: what does not fit is told before a replica starts.
        Padding(variant.batching.padding, card.raw_signature())


def _adapters(variant: VariantConfig) -> tuple[str, ...]:
    lora = variant.llm.lora if variant.llm is not None else None
    return tuple(each.name for each in lora.adapters) if lora is not None else ()


def _adapter_folder(variant: VariantConfig) -> str:
    lora = variant.llm.lora if variant.llm is not None else None
    return lora.directory if lora is not None else ""


def _of_sequences(name: str, sequences: SequencesConfig, card: ModelCard) -> Signature:
    """Raises: ConfigError for what cannot be a model of sequences, or does not fit it."""
    if card.preprocess or card.postprocess or card.decoupled:
        raise ConfigError(
            f"variants.{name}: sequences exclude preprocess, postprocess and decoupled",
            key=f"variants.{name}.sequences",
        )
    try:
        return sequences.public(card.raw_signature(), is_batched=card.batched)
    except ConfigError as error:
        raise ConfigError(f"variants.{name}: {error.message}", **error.details) from None


def colocation_of(variant: VariantConfig, origin: Origin) -> Colocation:
    """Whether the doors hold this variant, and why."""
    artefact = origin.folder / origin.card.artefact
    num_bytes = artefact.stat().st_size if origin.card.artefact and artefact.is_file() else 0
    return colocate(variant, engine=origin.engine, artefact_bytes=num_bytes)


def _artefact_bytes(origin: Origin) -> int:
    """Of the artefact's file, or of all files of its folder (weights beside the graph)."""
    if not origin.card.artefact or not origin.folder.is_dir():
        return 0
    artefact = origin.folder / origin.card.artefact
    folder = artefact if artefact.is_dir() else artefact.parent
    if origin.folder not in (folder, *folder.parents) or folder == Path.cwd():
        # A card in the configuration names a file of any folder: its neighbours are not its own.
        return artefact.stat().st_size if artefact.is_file() else 0
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _platform(engine: str, format: str) -> str:
    """As Triton names platforms: `onnxruntime_onnx`, and once where both are one."""
    return engine if engine == format else f"{engine}_{format}"


def _labels(card: ModelCard, folder: Path) -> tuple[bytes, ...]:
    if not isinstance(card.postprocess, ClassifyPostprocess):
        return ()
    return tuple(line.encode() for line in _lines(folder / card.postprocess.labels))


def _output_labels(origin: Origin) -> dict[str, tuple[str, ...]]:
    outputs = origin.card.signature.outputs
    return {out.name: _lines(origin.folder / out.labels) for out in outputs if out.labels}


def _lines(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8").splitlines())
