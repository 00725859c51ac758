"""Real sentences: embeddings and sentiment, served against direct."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import tokenizers
import tritonclient.grpc as grpc_client

from cluster.config.store import ModelStore
from cluster.tensors import Array, bytes_array
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.models]

SENTENCES = (
    "A cat sits on the mat.",
    "A feline rests on the rug.",
    "The stock market fell sharply today.",
    "",
    "word " * 400,
)


def served(prod: Running, model: str, texts: list[str], output: str) -> Array:
    text = grpc_client.InferInput("text", [len(texts)], "BYTES")
    text.set_data_from_numpy(bytes_array([t.encode() for t in texts], (len(texts),)))
    with grpc_client.InferenceServerClient(prod.grpc) as client:
        return np.asarray(client.infer(model, [text]).as_numpy(output))


class Direct:
    """MiniLM by ONNX Runtime and its tokenizer alone, one sentence at a time, no padding."""

    def __init__(self, store: ModelStore, model: str = "all-minilm-l6-v2") -> None:
        folder = store.folder(model, "")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(128)

    def embed(self, text: str) -> Array:
        ids = np.array([self._tokenizer.encode(text).ids], np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if any(given.name == "token_type_ids" for given in self._session.get_inputs()):
            inputs["token_type_ids"] = np.zeros_like(ids)
        vector = self._session.run(None, inputs)[0][0].mean(axis=0)
        return np.asarray(vector / np.linalg.norm(vector))


def test_served_embeddings_are_minilms_own(prod: Running, store: ModelStore) -> None:
    direct = np.stack([Direct(store).embed(text) for text in SENTENCES])

    vectors = served(prod, "text-embedder", list(SENTENCES), "embedding")

    cosines = (vectors * direct).sum(axis=1)
    assert vectors.shape == (5, 384)
    assert cosines.min() > 0.99999
    assert vectors[0] @ vectors[1] == pytest.approx(0.575, abs=0.002)
    assert vectors[0] @ vectors[2] == pytest.approx(0.091, abs=0.002)


def test_the_int8_embedder_stays_close_to_fp32(prod: Running, store: ModelStore) -> None:
    from cluster.optimization.samples import held_out_reviews

    texts = [review.text for review in held_out_reviews(store.root, limit=200)]
    vectors: dict[str, list[Array]] = {"text-embedder": [], "text-embedder-int8": []}
    for start in range(0, len(texts), 20):
        for model, found in vectors.items():
            found.append(served(prod, model, texts[start : start + 20], "embedding"))

    fp32, int8 = (np.concatenate(vectors[m]) for m in ("text-embedder", "text-embedder-int8"))
    cosines = (fp32 * int8).sum(axis=1)
    assert cosines.mean() >= 0.985


def test_sentiment_is_as_right_as_the_direct_pipeline(prod: Running, store: ModelStore) -> None:
    from cluster.optimization.samples import held_out_reviews

    reviews = held_out_reviews(store.root, limit=500)
    labels: list[bytes] = []
    for start in range(0, len(reviews), 20):
        texts = [review.text for review in reviews[start : start + 20]]
        labels += served(prod, "sentiment", texts, "label").tolist()
    head = onnxruntime.InferenceSession(
        store.folder("sentiment-head", "") / "model.onnx", providers=["CPUExecutionProvider"]
    )
    encoder = Direct(store)
    embedded = np.stack([encoder.embed(review.text) for review in reviews]).astype(np.float32)
    direct = head.run(None, {"embedding": embedded})[0].ravel() >= 0.5

    served_positive = np.array([label == b"positive" for label in labels])
    truth = np.array([review.is_positive for review in reviews])
    disagreements = int((served_positive != direct).sum())
    assert disagreements <= 2
    assert (served_positive == truth).mean() > 0.70
