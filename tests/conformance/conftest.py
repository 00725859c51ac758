"""Public clients and a real Triton against a running Squadron: `make conformance`.

`make test` runs only what is marked `slice`; the rest needs packages of other people's clients, a
Triton server and some minutes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config.serve_file import read_serve_file
from cluster.optimization.fetch import fetch
from cluster.optimization.sources import load_sources
from tests.e2e.running import Running, running

IS_WHOLE = os.environ.get("SQUADRON_CONFORMANCE") == "1"
HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if IS_WHOLE:
        return
    left = [
        item
        for item in items
        if HERE in item.path.parents and item.get_closest_marker("slice") is None
    ]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]


def serving(root: Path, name: str, folder: Path) -> Iterator[Running]:
    """A conformance configuration with its models made in `folder`."""
    file = root / "serve_configs" / name
    _, config = read_serve_file(file)
    sources = {variant.source for variant in config.variants.values() if variant.source}
    store = folder / "store"
    fetch(store, tuple(sorted(sources & set(load_sources().models))))
    with running(file, folder, store=store) as started:
        yield started


@pytest.fixture(scope="package")
def triton_models(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`serve_configs/conformance-grpc.yaml`: everything Triton's example clients ask for."""
    yield from serving(root, "conformance-grpc.yaml", tmp_path_factory.mktemp("triton-models"))
