"""A model at a URI, from the configuration to an answer, on two nodes' caches (no Ray needed)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from actors.deployments import replica_setup
from actors.model_replica import ModelReplica, brought
from actors.variant_facts import Origin, facts_of, origin_of
from cluster.config.squadron import SquadronConfig
from cluster.config.storage.location import StoreUri, parse_location
from cluster.config.store import ModelStore
from cluster.errors import ConfigError
from cluster.optimization.add import add_model
from cluster.optimization.remote.mirror import open_store, publish
from tests.s3_server import needs_s3, s3_server
from tests.triton_repository import write_scaler

pytestmark = needs_s3

URI = "s3://served/models"


@pytest.fixture
def published(tmp_path: Path) -> Iterator[ModelStore]:
    """A store with `triple`, which is at the URI too."""
    with s3_server("served"):
        store = ModelStore(tmp_path / "local")
        add_model(write_scaler(tmp_path / "triple.onnx", factor=3.0), store, "triple")
        uri = parse_location(URI)
        assert isinstance(uri, StoreUri)
        publish(store, uri, "triple")
        yield store


def config() -> SquadronConfig:
    content = {"store": {"path": URI}, "variants": {"triple": {"source": "triple"}}}
    return SquadronConfig.model_validate(content)


def test_a_replica_brings_its_model_on_a_node_that_does_not_have_it(
    published: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUADRON_MODEL_CACHE", str(tmp_path / "head"))
    made = config()
    store = open_store(made.store.path, made.store.cache)
    origin = origin_of("triple", made.variants["triple"], store)
    assert isinstance(origin, Origin)
    assert (
        facts_of("triple", made.variants["triple"], origin).fingerprint
        == facts_of(
            "triple",
            made.variants["triple"],
            _local(published, made),
        ).fingerprint
    )
    setup = replica_setup("triple", made.variants["triple"], origin, made.server)

    monkeypatch.setenv("SQUADRON_MODEL_CACHE", str(tmp_path / "worker"))
    here = brought(setup)

    assert here.folder.is_relative_to(tmp_path / "worker")
    replica = ModelReplica(here, metrics_at=tmp_path / "metrics")
    x = np.array([[1, 2, 3]], np.float32)
    (answer,) = replica._engine.infer({"x": x}).values()
    assert answer.tolist() == [[3, 6, 9]]


def test_a_model_that_is_not_at_the_uri_is_told_at_the_start(
    published: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUADRON_MODEL_CACHE", str(tmp_path / "cache"))
    made = config()
    variant = made.variants["triple"].model_copy(update={"source": "tripel"})

    with pytest.raises(ConfigError, match=r"variants\.triple: no model 'tripel' at s3://served"):
        origin_of("triple", variant, open_store(made.store.path, made.store.cache))


def _local(store: ModelStore, made: SquadronConfig) -> Origin:
    origin = origin_of("triple", made.variants["triple"], store)
    assert isinstance(origin, Origin)
    return origin
