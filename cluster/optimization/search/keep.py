"""The chosen variant taken out of the cache: a folder with artefact, card and report."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from cluster.config.model_card import ModelCard
from cluster.config.section import NAME_PATTERN
from cluster.config.store import ModelStore, new_version, seal
from cluster.errors import ConfigError
from cluster.optimization.export.whole import beside
from cluster.optimization.intake.files import files_of
from cluster.optimization.measure.variant import Variant
from cluster.optimization.search.page import page, plot
from cluster.optimization.search.report import OptimizeReport

REPORT_FILE = "report.json"


def check_free(folder: Path) -> None:
    """Raises: ConfigError when `folder` holds something that no search of ours wrote, is a file, or
    cannot be made."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"{folder} is a file; choose a folder with --out", file=str(folder), key="out"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # A trial: whether it can be written shows before the search, not after it.
        tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent).cleanup()
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be made: {error.strerror}; choose another with --out",
            file=str(folder),
            key="out",
        ) from None
    if folder.exists() and any(folder.iterdir()) and not (folder / REPORT_FILE).is_file():
        raise ConfigError(
            f"{folder} is not empty and holds no report of a search; choose another with --out",
            file=str(folder),
            key="out",
        )


def check_name(name: str) -> None:
    """Raises: ConfigError for what is no name of a model: the store would hold a card that nobody
    can read."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(
            f"{name[:80]!r} is no name for a model; allowed: letters, digits, '.', '_' and '-', "
            "the first a letter or a digit",
            key="name",
            value=name[:80],
        )


def keep(report: OptimizeReport, folder: Path) -> OptimizeReport:
    """Fill `folder` (in place of an earlier report) whole or not at all; the report names it.

    A torch module that stays as it is has no artefact: only the report is written.
    """
    check_free(folder)
    with beside(folder) as partial:
        partial.chmod(0o755)
        named = replace(report, folder=folder)
        if report.chosen.variant is not None:
            copy_variant(report.chosen.variant, partial)
            seal(partial, validated_card(report))
        content = json.dumps(named.as_dict(), indent=1)
        (partial / REPORT_FILE).write_text(content, encoding="utf-8")
        (partial / "report.html").write_text(page(named), encoding="utf-8")
        (partial / "front.svg").write_text(plot(report.candidates, report.chosen), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    return named


def add_to_store(report: OptimizeReport, store: ModelStore, name: str) -> ModelCard:
    """The chosen variant as the next version of model `name`, ready to be served.

    Raises: ConfigError when the original torch module was chosen, which cannot be stored, and for
    what is no name.
    """
    check_name(name)
    variant = report.chosen.variant
    if variant is None:
        raise ConfigError("the torch module itself was chosen; it has no artefact", key="add")
    version = str(1 + max((int(card.version) for card in store.versions(name)), default=0))
    with new_version(store.root, name, version) as folder:
        copy_variant(variant, folder)
        card = validated_card(report).model_copy(update={"name": name, "version": version})
        return seal(folder, card)


def serve_section(report: OptimizeReport, card: ModelCard) -> dict[str, object]:
    """The chosen variant, stored as `card`, as a section of `variants:`: served as it was measured,
    by the same engine with the same options and threads."""
    variant = report.chosen.variant
    assert variant is not None, "it is in the store"
    section: dict[str, object] = {"source": f"{card.name}/{card.version}", "engine": variant.engine}
    if variant.options:
        section["options"] = dict(variant.options)
    if variant.device != "cpu":
        section["device"] = variant.device
    return {**section, "threads": report.threads}


def copy_variant(variant: Variant, folder: Path) -> None:
    """The artefact with its side files (labels, tokenizer, weights), without its card. Not what
    else lies there: the original's folder may be the caller's own, full of other things."""
    for file in files_of(variant.card, variant.folder):
        shutil.copyfile(file, folder / file.name)


def validated_card(report: OptimizeReport) -> ModelCard:
    """The variant's card, saying how it was judged wherever it goes."""
    assert report.chosen.variant is not None, "asked for variants only"
    card = report.chosen.variant.card
    notes = "; ".join(part for part in (card.provenance.notes, report.chosen.quality) if part)
    options = ", ".join(f"{k}={v}" for k, v in report.chosen.variant.options.items())
    if options:
        notes += f"; serve with engine {report.chosen.engine}, options {options}"
    return card.model_copy(
        update={"provenance": card.provenance.model_copy(update={"notes": notes})}
    )
