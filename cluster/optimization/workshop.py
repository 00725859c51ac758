"""What every recipe works with: the manifest, verified archives, samples, the store, progress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.config.model_card import Provenance
from cluster.config.store import ModelStore
from cluster.optimization.archive import read_member
from cluster.optimization.download import ArchiveCache
from cluster.optimization.progress import Progress
from cluster.optimization.sources import Member, Sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    sources: Sources
    cache: ArchiveCache
    store: ModelStore
    progress: Progress

    def archive(self, name: str) -> Path:
        """An archive of the manifest; its hash was checked just now."""
        return self.cache.get(self.sources.archives[name])

    def read(self, member: Member) -> bytes:
        return read_member(self.archive(member.archive), member.path)

    def provenance(self, archive: str, *, file: str, recipe: str, notes: str = "") -> Provenance:
        source = self.sources.archives[archive]
        return Provenance(
            package=source.package,
            package_version=source.version,
            package_sha256=source.sha256,
            file=file,
            licence=source.licence,
            recipe=recipe,
            notes=notes,
        )
