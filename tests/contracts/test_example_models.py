"""The fetched models through processing and engine: known answers on known inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.config.store import ModelStore
from cluster.engines.engine import Engine, EngineSetup
from cluster.engines.table import default_engine, make_engine
from cluster.processing.pipeline import Pipeline
from cluster.tensors import Array, bytes_array

pytestmark = pytest.mark.models


def loaded(root: Path, name: str) -> tuple[Pipeline, Engine]:
    store = ModelStore(root / "models")
    if not store.versions(name):
        pytest.skip(f"{name} is not fetched: squadron models fetch")
    card, folder = store.card(name), store.folder(name)
    engine = make_engine(default_engine(card.format), EngineSetup(card=card, folder=folder))
    engine.load()
    return Pipeline(card, folder), engine


def answer(made: tuple[Pipeline, Engine], *requests: dict[str, Array]) -> dict[str, Array]:
    pipeline, engine = made
    merged = pipeline.merge([pipeline.prepare(request) for request in requests])
    wanted = {
        spec.name for spec in (*pipeline.signature.outputs, *pipeline.signature.extra_outputs)
    }
    return pipeline.finish(engine.infer(merged), merged, wanted)


def texts(*items: str) -> dict[str, Array]:
    return {"text": bytes_array([item.encode() for item in items], (len(items),))}


@pytest.mark.parametrize(
    "name",
    ["efficientnet-lite0", "efficientnet-lite0-int8", "efficientnet-lite1", "efficientnet-lite2"],
)
def test_eighteen_of_the_twenty_photos_are_recognised(name: str, root: Path) -> None:
    """With the usual ImageNet mean and std it would be 15 or 16: nothing crashes then."""
    made = loaded(root, name)
    photos = sorted((root / "models" / ".samples" / "foolbox").rglob("imagenet_*.jpg"))
    assert len(photos) == 20
    truth = np.array([int(photo.stem.rsplit("_", 1)[1]) for photo in photos])
    data = bytes_array([photo.read_bytes() for photo in photos], (20,))

    found = answer(made, {"image": data[:7]}, {"image": data[7:]})

    assert (found["probabilities"].argmax(axis=1) == truth).sum() == 18
    assert found["labels"][0, 0] == b"bull mastiff"


def test_sentences_of_like_meaning_lie_close(root: Path) -> None:
    vectors = answer(
        loaded(root, "all-minilm-l6-v2"),
        texts("A cat sits on the mat."),
        texts("A feline rests on the rug.", "The stock market fell sharply today."),
    )["embedding"]

    np.testing.assert_allclose(vectors[1:] @ vectors[0], [0.575, 0.091], atol=1e-3)


def test_a_texts_embedding_is_the_same_alone_and_in_company(root: Path) -> None:
    made = loaded(root, "all-minilm-l6-v2")
    alone = answer(made, texts("A cat sits on the mat."))["embedding"][0]

    company = answer(made, texts("movie " * 300, ""), texts("A cat sits on the mat."))["embedding"]

    np.testing.assert_allclose(company[2], alone, atol=1e-5)
