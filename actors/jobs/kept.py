"""What a search chose, in the server's store but under no name: until it is added, or forgotten."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from cluster.config.model_card import ModelCard
from cluster.config.section import NAME_PATTERN
from cluster.config.store import CARD_FILE, ModelStore, new_version, seal
from cluster.config.yaml_file import read_section
from cluster.errors import InvalidRequest
from cluster.optimization.measure.variant import Variant
from cluster.optimization.search.keep import copy_variant

KEPT = ".jobs"
NOT_KEPT = (
    "what this search chose is not kept (the last few are, where the store can be written to): "
    "search again with add_to_store, which finds in the cache what was built"
)
OLD_S = 24 * 3600.0


def kept_folder(root: Path, job_id: str) -> Path:
    return root / KEPT / job_id


def remove_kept(root: Path, job_id: str) -> None:
    for folder in (kept_folder(root, job_id), *(root / KEPT).glob(f".{job_id}-*")):
        shutil.rmtree(folder, ignore_errors=True)


def remove_old(root: Path, known: Collection[str], now_s: float) -> None:
    """What a server that was killed left behind. Young folders may be another server's."""
    if not (root / KEPT).is_dir():
        return
    for folder in (root / KEPT).iterdir():
        job_id = folder.name.removeprefix(".").partition("-")[0]
        with suppress(OSError):  # another may have removed it just now
            if job_id not in known and now_s - folder.stat().st_mtime > OLD_S:
                shutil.rmtree(folder, ignore_errors=True)


def add_kept(folder: Path, store: ModelStore, name: str) -> ModelCard:
    """As the next version of `name`, whole or not at all. Raises: InvalidRequest."""
    if not re.fullmatch(NAME_PATTERN, name) or len(name) > 200:
        raise InvalidRequest(f"{name[:80]!r} is no name for a model: letters, digits, . _ and -")
    if not (folder / CARD_FILE).is_file():
        raise InvalidRequest(NOT_KEPT)
    card = read_section(folder / CARD_FILE, ModelCard)
    version = str(1 + max((int(each.version) for each in store.versions(name)), default=0))
    with new_version(store.root, name, version) as target:
        copy_variant(Variant(card=card, folder=folder), target)
        return seal(target, card.model_copy(update={"name": name, "version": version}))
