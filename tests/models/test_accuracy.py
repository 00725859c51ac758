"""The fetched models compute what their makers' do: sanity sets and gates, no ranking of models.

n = 20 photos cannot rank models (18 right: 95 % interval 70 to 97 %); they catch broken
preprocessing, label order and exports. Thresholds of the encoders: measured with 8,572 reviews.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from cluster.config.store import ModelStore
from cluster.optimization.embed import embed
from cluster.optimization.samples import (
    Photo,
    demo_photos,
    held_out_reviews,
    imagenet_photos,
    movie_reviews,
    split_reviews,
)
from cluster.processing.pipeline import Pipeline
from cluster.tensors import Array, bytes_array

pytestmark = pytest.mark.models


def probabilities(store: ModelStore, name: str, photos: tuple[Photo, ...]) -> Array:
    """Shapes: `[photos, 1000]`, through the processing that serving uses."""
    card = store.card(name)
    folder = store.folder(name)
    pipeline = Pipeline(card, folder)
    session = onnxruntime.InferenceSession(
        folder / card.artefact, providers=["CPUExecutionProvider"]
    )
    files = bytes_array([photo.path.read_bytes() for photo in photos], (len(photos),))
    inputs = pipeline.merge([pipeline.prepare({"image": files})])
    logits = np.asarray(session.run(["logits"], inputs)[0])
    return pipeline.finish({"logits": logits}, inputs, {"probabilities"})["probabilities"]


def num_right(scores: Array, photos: tuple[Photo, ...]) -> int:
    best = scores.argmax(axis=1)
    return sum(int(index) in photo.classes for index, photo in zip(best, photos, strict=True))


@pytest.mark.parametrize(
    "name",
    ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "efficientnet-lite0-int8"],
)
def test_image_models_pass_the_sanity_photos(store: ModelStore, name: str) -> None:
    photos = imagenet_photos(store.root)
    assert len(photos) == 20
    assert num_right(probabilities(store, name, photos), photos) >= 18


def test_the_bull_mastiff_is_one(store: ModelStore) -> None:
    (photo,) = (p for p in imagenet_photos(store.root) if p.path.name == "imagenet_00_243.jpg")
    scores = probabilities(store, "efficientnet-lite0", (photo,))[0]
    labels = (store.folder("efficientnet-lite0") / "labels.txt").read_text().splitlines()
    assert labels[int(scores.argmax())] == "bull mastiff"
    assert scores.max() == pytest.approx(0.70, abs=0.02)


def test_int8_image_model_agrees_with_fp32(store: ModelStore) -> None:
    # Not the demo photos: the int8 model was calibrated on crops of some of them.
    photos = imagenet_photos(store.root)
    fp32 = probabilities(store, "efficientnet-lite0", photos)
    int8 = probabilities(store, "efficientnet-lite0-int8", photos)
    assert (fp32.argmax(axis=1) == int8.argmax(axis=1)).sum() >= 19
    assert np.abs(fp32 - int8).max(axis=1).mean() < 0.06


@pytest.mark.parametrize(
    ("name", "least_right"),
    [("efficientnet-lite0", 5), ("efficientnet-lite1", 5), ("efficientnet-lite2", 4)],
)
def test_fp32_image_models_know_the_demo_photos(
    store: ModelStore, name: str, least_right: int
) -> None:
    photos = demo_photos(store.root)
    assert num_right(probabilities(store, name, photos), photos) >= least_right


@pytest.mark.parametrize(
    ("name", "least_mean", "least"),
    [("all-minilm-l6-v2-int8", 0.985, 0.97), ("all-minilm-l6-v2-int8-weights", 0.995, 0.99)],
)
def test_int8_encoders_stay_close_to_fp32(
    store: ModelStore, name: str, least_mean: float, least: float
) -> None:
    texts = [review.text for review in held_out_reviews(store.root, 200)]
    cosines = (vectors(store, "all-minilm-l6-v2", texts) * vectors(store, name, texts)).sum(axis=1)
    assert cosines.mean() >= least_mean
    assert cosines.min() >= least


def test_encoder_knows_what_is_alike(store: ModelStore) -> None:
    cat, feline, stocks = vectors(
        store,
        "all-minilm-l6-v2",
        [
            "A cat sits on the mat.",
            "A feline rests on the rug.",
            "The stock market fell sharply today.",
        ],
    )
    assert cat @ feline == pytest.approx(0.575, abs=0.005)
    assert cat @ stocks == pytest.approx(0.091, abs=0.005)


@pytest.mark.parametrize("encoder", ["all-minilm-l6-v2", "all-minilm-l6-v2-int8"])
def test_sentiment_of_held_out_reviews(store: ModelStore, encoder: str) -> None:
    reviews = held_out_reviews(store.root, 500)
    folder = store.folder("sentiment-head")
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    embeddings = vectors(store, encoder, [review.text for review in reviews])
    (probability,) = session.run(None, {"embedding": embeddings})
    positive = np.asarray(probability)[:, 0] > 0.5
    right = positive == np.array([review.is_positive for review in reviews])
    # 75.6 % of all 8,572 held-out reviews; one standard error of 500 is 1.9 points.
    assert right.mean() >= 0.72


def test_review_split_is_the_one_that_was_measured(store: ModelStore) -> None:
    reviews = movie_reviews(store.root)
    split = split_reviews(reviews)
    assert (len(reviews), len(split.train), len(split.test)) == (10_605, 1_500, 8_572)
    assert not {r.number for r in split.train} & {r.number for r in split.test}


def vectors(store: ModelStore, name: str, texts: list[str]) -> Array:
    return embed(store.card(name), store.folder(name), texts, threads=1)
