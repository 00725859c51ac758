"""`squadron models fetch`: make the example models that the store lacks, in order of need."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from cluster.config.model_card import ModelCard
from cluster.config.store import ModelStore, new_version, seal
from cluster.errors import ConfigError
from cluster.optimization.download import ArchiveCache, Index
from cluster.optimization.progress import Progress, Silent
from cluster.optimization.samples import install_samples
from cluster.optimization.sources import (
    CausalLmRecipe,
    DirectoryRecipe,
    DynamicInt8Recipe,
    EfficientNetRecipe,
    EncoderRecipe,
    GgufRecipe,
    IdentityRecipe,
    PackagedEncoderRecipe,
    SentimentHeadRecipe,
    SequenceArithmeticRecipe,
    Sources,
    StaticInt8Recipe,
    SumAndDifferenceRecipe,
    load_sources,
    recipe_samples,
)
from cluster.optimization.workshop import Workshop

NEEDED_TO_EXPORT = ("torch", "onnx", "onnxruntime", "transformers")
NEEDED_FOR_GGUF = ("gguf", "accelerate")
"""What transformers wants beside itself to read a GGUF file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """`is_new`: made just now; otherwise it was in the store already."""

    name: str
    version: str
    folder: Path
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchReport:
    models: tuple[Fetched, ...]
    new_samples: tuple[str, ...]
    downloaded_bytes: int


def fetch(
    root: Path,
    names: tuple[str, ...] = (),
    *,
    sources: Sources | None = None,
    index: Index | None = None,
    progress: Progress | None = None,
) -> FetchReport:
    """Make the named example models (all, with every sample set, when none is named).

    What is in the store already is left alone, so that a second call does nothing and is quick.

    Raises: ConfigError for an unknown name, an archive that cannot be had or is not the pinned
    one, and an export that does not compute what torch does.
    """
    sources = sources or load_sources()
    progress = progress or Silent()
    workshop = Workshop(
        sources=sources,
        cache=ArchiveCache(root / ".archives", index=index, progress=progress),
        store=ModelStore(root),
        progress=progress,
    )
    order = sources.in_order(names)
    missing = [name for name in order if not workshop.store.has(name, sources.models[name].version)]
    if missing:
        _check_tools(missing, sources)
    wanted_samples = () if names else tuple(sources.samples)
    new_samples = [name for name in wanted_samples if _install(name, workshop)]
    for name in missing:
        for sample in recipe_samples(sources.models[name].recipe):
            if _install(sample, workshop):
                new_samples.append(sample)
        _make(name, workshop)
    return FetchReport(
        models=tuple(
            Fetched(
                name=name,
                version=sources.models[name].version,
                folder=root / name / sources.models[name].version,
                is_new=name in missing,
            )
            for name in order
        ),
        new_samples=tuple(new_samples),
        downloaded_bytes=workshop.cache.downloaded_bytes,
    )


def _install(sample: str, workshop: Workshop) -> bool:
    return install_samples(sample, workshop.sources, workshop.cache, workshop.store.root)


def _check_tools(missing: list[str], sources: Sources) -> None:
    needed: tuple[str, ...] = NEEDED_TO_EXPORT
    if any(isinstance(sources.models[name].recipe, GgufRecipe) for name in missing):
        needed += NEEDED_FOR_GGUF
    absent = [tool for tool in needed if importlib.util.find_spec(tool) is None]
    if absent:
        raise ConfigError(
            f"making {', '.join(missing)} needs {', '.join(absent)}; "
            "install them: pip install 'squadron-serve[cpu,export]'",
            key="export",
            value=", ".join(absent),
        )


def _make(name: str, workshop: Workshop) -> ModelCard:
    version = workshop.sources.models[name].version
    with new_version(workshop.store.root, name, version) as folder:
        return seal(folder, _build(name, version, workshop, folder))


def _build(name: str, version: str, workshop: Workshop, folder: Path) -> ModelCard:
    # Each recipe's module is imported only when used: they pull in torch or onnxruntime.
    match workshop.sources.models[name].recipe:
        case EfficientNetRecipe() as recipe:
            from cluster.optimization import efficientnet

            return efficientnet.build(name, version, recipe, workshop, folder)
        case EncoderRecipe() as recipe:
            from cluster.optimization import encoder

            return encoder.build(name, version, recipe, workshop, folder)
        case DirectoryRecipe() as recipe:
            from cluster.optimization.huggingface import directory

            return directory.build(name, version, recipe, workshop, folder)
        case GgufRecipe() as recipe:
            from cluster.optimization.huggingface import gguf

            return gguf.build(name, version, recipe, workshop, folder)
        case PackagedEncoderRecipe() as recipe:
            from cluster.optimization import encoder

            return encoder.build_packaged(name, version, recipe, workshop, folder)
        case StaticInt8Recipe() as recipe:
            from cluster.optimization import quantise

            return quantise.build_static(name, version, recipe, workshop, folder)
        case DynamicInt8Recipe() as recipe:
            from cluster.optimization import quantise

            return quantise.build_dynamic(name, version, recipe, workshop, folder)
        case SentimentHeadRecipe() as recipe:
            from cluster.optimization import sentiment

            return sentiment.build(name, version, recipe, workshop, folder)
        case IdentityRecipe() as recipe:
            from cluster.optimization import tiny_graphs

            return tiny_graphs.build_identity(name, version, recipe, folder)
        case SumAndDifferenceRecipe() as recipe:
            from cluster.optimization import tiny_graphs

            return tiny_graphs.build_sum_and_difference(name, version, recipe, folder)
        case SequenceArithmeticRecipe() as recipe:
            from cluster.optimization import tiny_graphs

            return tiny_graphs.build_sequence_arithmetic(name, version, recipe, folder)
        case CausalLmRecipe() as recipe:
            from cluster.optimization.language import causal_lm

            return causal_lm.build(name, version, recipe, workshop, folder)
