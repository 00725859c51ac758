"""These tests use the fetched models; without them they skip and say how to get them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.store import ModelStore, default_root
from cluster.optimization.sources import load_sources


@pytest.fixture(scope="session")
def store(root: Path) -> ModelStore:
    found = ModelStore(root / default_root())
    sources = load_sources()
    missing = [n for n, source in sources.models.items() if not found.has(n, source.version)]
    missing += [n for n in sources.samples if not (found.root / ".samples" / n).is_dir()]
    if missing:
        pytest.skip(f"not in {found.root}: {', '.join(missing)}; run: squadron models fetch")
    return found
