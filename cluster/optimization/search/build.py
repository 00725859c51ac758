"""A candidate built through the cache, and judged by the gate."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.config.model_card import ModelCard, Provenance
from cluster.config.store import seal, sha256_of
from cluster.engines.cache.artefact_cache import ArtefactCache, cache_key
from cluster.errors import SquadronError
from cluster.optimization.gate.gate import GateLimits, judge
from cluster.optimization.intake.data import Dataset
from cluster.optimization.intake.files import files_of, side_files
from cluster.optimization.intake.model import GivenModel
from cluster.optimization.measure.variant import Variant, answers, opened, ranks_classes
from cluster.optimization.search.recipe import Material, Recipe
from cluster.optimization.search.recipes import missing
from cluster.optimization.search.report import Candidate
from cluster.tensors import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bench:
    """What all candidates of one search share."""

    cache: ArtefactCache
    libraries: Mapping[str, str]
    hardware: Mapping[str, object]
    threads: int


def build(recipe: Recipe, material: Material, model_sha256: str, bench: Bench) -> Candidate:
    """The candidate with its variant, or with the reason why there is none; never raises for what
    the recipe or a library refuses."""
    candidate = Candidate(
        name=recipe.name,
        engine=recipe.engine,
        precision=recipe.precision,
        says=recipe.says,
        model=material.card.name,
    )
    reason = missing(recipe) or recipe.why_not(material)
    if reason:
        candidate.reason = reason
        return candidate
    parameters: dict[str, object] = {"name": recipe.name, **recipe.parameters}
    beside = side_files(material.card, material.onnx.parent)
    if beside:
        parameters["files"] = {file.name: sha256_of(file) for file in beside}
    if recipe.format == "aot_inductor":
        # Inductor writes these into the code that it compiles.
        parameters["threads"] = bench.threads
        parameters["mkldnn"] = _uses_mkldnn()
    if recipe.wants_calibration:
        parameters["calibration"] = items_sha256(material.calibration)
    if recipe.reads_limits:
        parameters["limits"] = f"{material.limits} {material.is_real_data}"
    parameters.update({name: repr(getattr(material.tuning, name)) for name in recipe.tuned_by})
    if "schedule" in recipe.tuned_by and material.lessons is not None:
        parameters["lessons"] = items_sha256(material.lessons.items)
        parameters["labels"] = repr(material.lessons.labels)
    key = cache_key(
        model_sha256=model_sha256,
        recipe=parameters,
        libraries=bench.libraries,
        hardware=bench.hardware,
    )

    def fill(folder: Path) -> None:
        recipe.build(material, folder)
        for file in beside:
            shutil.copyfile(file, folder / file.name)
        seal(folder, card_of(recipe, material.card, model_sha256))

    try:
        hit = bench.cache.get_or_build(key, fill)
    except SquadronError as error:
        candidate.status, candidate.reason = "failed", error.message
        if error.details.get("key") == "cache_dir":
            # No space: the next candidate would fail alike.
            raise
        return candidate
    except Exception as error:
        # A library refused this graph in its own way; the other candidates go on.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        candidate.status, candidate.reason = "failed", f"{type(error).__name__}: {lines[0][:300]}"
        return candidate
    card = card_of(recipe, material.card, model_sha256)
    candidate.variant = Variant(
        card=card,
        folder=hit.folder,
        engine=recipe.engine,
        options=recipe.options,
        device=recipe.device,
    )
    candidate.size_bytes = candidate.variant.num_bytes
    candidate.was_cached = not hit.was_built
    return candidate


def _uses_mkldnn() -> bool:
    import torch

    return bool(torch.backends.mkldnn.enabled)


def lasting(given: GivenModel, workspace: Path, bench: Bench) -> GivenModel:
    """The model in the cache where it lies in the search's own folder (what had to be exported
    first): it may be chosen, and the folder goes when the search ends."""
    if given.module is not None or not given.folder.is_relative_to(workspace):
        return given
    files = files_of(given.card, given.folder)
    recipe: dict[str, object] = {"name": "given", "format": given.card.format}
    recipe["files"] = {file.name: sha256_of(file) for file in files}
    key = cache_key(
        model_sha256=given.sha256, recipe=recipe, libraries=bench.libraries, hardware={}
    )

    def fill(folder: Path) -> None:
        for file in files:
            shutil.copyfile(file, folder / file.name)
        seal(folder, given.card)

    return replace(given, folder=bench.cache.get_or_build(key, fill).folder)


def card_of(recipe: Recipe, source: ModelCard, model_sha256: str) -> ModelCard:
    precision = recipe.precision
    return source.model_copy(
        update={
            "format": recipe.format,
            "artefact": recipe.artefact,
            "sha256": "",
            "precision": precision,
            "provenance": Provenance(
                file=recipe.artefact,
                licence=source.provenance.licence,
                recipe=f"{recipe.name}: {recipe.says}",
                notes=f"made from {source.name}, sha256 {model_sha256}",
            ),
        }
    )


def items_sha256(items: Sequence[Mapping[str, Array]]) -> str:
    digest = hashlib.sha256()
    for item in items:
        for name, array in item.items():
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def examine(
    candidate: Candidate,
    expected: Sequence[Mapping[str, Array]],
    data: Dataset,
    limits: GateLimits,
    *,
    threads: int,
    card: ModelCard,
) -> None:
    """Runs the candidate on every item and lets the gate judge its answers; sets its status."""
    if candidate.variant is None:
        return
    try:
        with opened(candidate.variant, threads=threads) as run:
            found = answers(run, data.items, card)
        candidate.verdict = judge(
            [dict(each) for each in expected],
            found,
            labels=data.labels,
            ranks_classes=ranks_classes(card),
            is_real_data=data.is_real,
            limits=limits,
        )
    except SquadronError as error:
        candidate.status, candidate.reason = "failed", error.message
        return
    if not candidate.verdict.passed:
        candidate.status = "failed the gate"
        candidate.reason = candidate.verdict.reasons[0]
    else:
        candidate.status = "measured"
