from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.config.model_card import ModelCard
from cluster.errors import ConfigError, InvalidRequest
from cluster.processing.pipeline import Pipeline
from cluster.tensors import Array, bytes_array
from tests.cluster.processing.small_tokenizer import WORDS, save_tokenizer

TOKENS = [
    {"name": name, "datatype": "INT64", "shape": [-1, -1]}
    for name in ("input_ids", "attention_mask")
]
HIDDEN = {"name": "hidden", "datatype": "FP32", "shape": [-1, -1, 3]}
IMAGE = {"name": "pixels", "datatype": "FP32", "shape": [-1, 3, 8, 8]}
LOGITS = {"name": "logits", "datatype": "FP32", "shape": [-1, 3]}


def pipeline(
    folder: Path, inputs: object, outputs: object, *, raw: bool = False, **changes: object
) -> Pipeline:
    signature = {"inputs": inputs, "outputs": outputs}
    card = ModelCard.model_validate(
        {"name": "m", "format": "fake", "signature": signature} | changes
    )
    return Pipeline(card, folder, raw=raw)


def plain(folder: Path, **changes: object) -> Pipeline:
    x = {"name": "x", "datatype": "FP32", "shape": [-1, -1]}
    return pipeline(folder, [x], [{"name": "y", "datatype": "FP32", "shape": [-1, -1]}], **changes)


def embedding(folder: Path, **changes: object) -> Pipeline:
    save_tokenizer(folder)
    return pipeline(
        folder,
        TOKENS,
        [HIDDEN],
        preprocess={"kind": "text"},
        postprocess={"kind": "mean_pool", "input": "hidden"},
        **changes,
    )


def classifying(folder: Path, **changes: object) -> Pipeline:
    (folder / "labels.txt").write_text("red\ngreen\nblue\n", encoding="utf-8")
    processing: dict[str, object] = {
        "preprocess": {"kind": "image", "input": "pixels", "size": 8, "crop_padding": 0},
        "postprocess": {"kind": "classify", "input": "logits", "top_k": 1},
    }
    return pipeline(folder, [IMAGE], [LOGITS], **(processing | changes))  # type: ignore[arg-type]


def texts(*items: str) -> dict[str, Array]:
    return {"text": bytes_array([item.encode() for item in items], (len(items),))}


def png(colour: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(stream, "PNG")
    return stream.getvalue()


def encode(inputs: dict[str, Array]) -> dict[str, Array]:
    """An encoder in which every token sees all others that count, as in a transformer."""
    table = np.random.default_rng(3).normal(size=(len(WORDS), 3)).astype(np.float32)
    mask = inputs["attention_mask"][..., None].astype(np.float32)
    vectors = table[inputs["input_ids"]]
    context = (vectors * mask).sum(axis=1, keepdims=True) / mask.sum(axis=1, keepdims=True)
    return {"hidden": np.tanh(vectors + context).astype(np.float32)}


def test_without_processing_everything_passes(tmp_path: Path) -> None:
    made = plain(tmp_path)
    x = np.ones((2, 3), np.float32)
    prepared = made.prepare({"x": x})
    merged = made.merge([prepared, made.prepare({"x": 2 * x[:1]})])

    assert prepared.rows == 2
    assert merged["x"].tolist() == [[1, 1, 1], [1, 1, 1], [2, 2, 2]]
    assert made.finish({"y": x, "more": x}, merged, {"y"}) == {"y": x}


def test_a_single_request_is_not_copied(tmp_path: Path) -> None:
    made = plain(tmp_path)
    x = np.ones((2, 3), np.float32)

    assert made.merge([made.prepare({"x": x})])["x"] is x


def test_only_requests_of_one_shape_share_a_batch(tmp_path: Path) -> None:
    made = plain(tmp_path)
    keys = [
        made.prepare({"x": np.ones(shape, np.float32)}).shape_key
        for shape in [(1, 3), (5, 3), (1, 4)]
    ]

    assert keys[0] == keys[1] != keys[2]


def test_requests_to_a_model_without_a_batch_dimension_are_not_merged(tmp_path: Path) -> None:
    made = plain(tmp_path, batched=False)
    prepared = made.prepare({"x": np.ones((2, 3), np.float32)})

    assert prepared.rows == 1
    with pytest.raises(ValueError, match="cannot be merged"):
        made.merge([prepared, prepared])


def test_inputs_that_are_not_the_public_ones_are_refused(tmp_path: Path) -> None:
    made = classifying(tmp_path)

    with pytest.raises(InvalidRequest, match="unexpected input 'pixels'; the model takes 'image'"):
        made.prepare({"pixels": np.zeros((1, 3, 8, 8), np.float32)})
    with pytest.raises(InvalidRequest, match=r"expected shape \[-1\], got \[1, 1\]"):
        made.prepare({"image": bytes_array([png((0, 0, 0))], (1, 1))})


def test_photos_become_labels(tmp_path: Path) -> None:
    made = classifying(tmp_path)
    batch = [
        made.prepare({"image": bytes_array([png((255, 0, 0)), png((0, 0, 255))], (2,))}),
        made.prepare({"image": bytes_array([png((0, 255, 0))], (1,))}),
    ]
    merged = made.merge(batch)
    outputs = {"logits": merged["pixels"].mean(axis=(2, 3))}

    assert [prepared.rows for prepared in batch] == [2, 1]
    assert batch[0].shape_key == batch[1].shape_key
    found = made.finish(outputs, merged, {"labels"})
    assert list(found) == ["labels"]
    assert found["labels"].tolist() == [[b"red"], [b"blue"], [b"green"]]


def test_raw_serves_the_artefacts_own_tensors(tmp_path: Path) -> None:
    made = classifying(tmp_path, raw=True)
    pixels = np.zeros((1, 3, 8, 8), np.float32)
    merged = made.merge([made.prepare({"pixels": pixels})])

    assert [spec.name for spec in made.signature.inputs] == ["pixels"]
    assert list(made.finish({"logits": pixels}, merged, {"logits"})) == ["logits"]


def test_a_texts_embedding_is_the_same_alone_and_in_company(tmp_path: Path) -> None:
    made = embedding(tmp_path)
    alone = made.merge([made.prepare(texts("a cat"))])
    expected = made.finish(encode(alone), alone, {"embedding"})["embedding"][0]

    company = [
        made.prepare(texts("a")),
        made.prepare(texts("a cat sat a cat sat", "a cat")),
        made.prepare(texts("a cat")),
    ]
    merged = made.merge(company)
    found = made.finish(encode(merged), merged, {"embedding"})["embedding"]

    assert len({prepared.shape_key for prepared in company}) == 1
    assert merged["input_ids"].shape == (4, 8)
    assert merged["input_ids"][3].tolist() == [1, 4, 5, 2, 3, 3, 3, 3]
    assert merged["attention_mask"][3].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    np.testing.assert_allclose(found[2:], [expected, expected], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_probability_becomes_one_of_two_labels(tmp_path: Path) -> None:
    p = {"name": "p", "datatype": "FP32", "shape": [-1, 1]}
    made = pipeline(tmp_path, [p], [p], postprocess={"kind": "binary", "input": "p"})
    found = made.finish({"p": np.array([[0.25], [0.75]])}, {}, {"label", "score"})

    assert found["label"].tolist() == [b"negative", b"positive"]
    assert found["score"].tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batched": False}, "the card says batched: false"),
        ({"preprocess": {"kind": "image", "input": "x", "size": 8}}, "the artefact takes pixels"),
        ({"postprocess": {"kind": "classify", "input": "x"}}, "the artefact gives logits"),
        ({"postprocess": {"kind": "mean_pool", "input": "logits"}}, "takes attention_mask"),
    ],
)
def test_processing_that_does_not_fit_the_artefact_is_refused_at_start(
    changes: dict[str, object], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        classifying(tmp_path, **changes)
