"""One running Squadron a session: `serve_configs/prod.yaml` with its real models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config.store import ModelStore
from tests.e2e.running import Running, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`prod` runs until the session ends, so those that ask it come last of this folder."""
    here = Path(__file__).parent
    at = [index for index, item in enumerate(items) if here in item.path.parents]
    mine = sorted((items[index] for index in at), key=lambda i: "prod" in i.fixturenames)  # type: ignore[attr-defined]
    for index, item in zip(at, mine, strict=True):
        items[index] = item


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
