"""One running Squadron a session: `serve_configs/prod.yaml` with its real models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config.store import ModelStore
from tests.e2e.running import Running, running


@pytest.fixture(scope="session")
def store(root: Path) -> ModelStore:
    """The fetched models; `make test` fetches them."""
    found = ModelStore(Path(os.environ.get("SQUADRON_MODEL_STORE") or root / "models"))
    if not found.root.is_dir():
        pytest.skip(f"the models are not fetched ({found.root}): run `squadron models fetch`")
    return found


@pytest.fixture(scope="session")
def prod(
    root: Path, store: ModelStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("prod")
    with running(root / "serve_configs/prod.yaml", folder, store=store.root) as started:
        yield started
