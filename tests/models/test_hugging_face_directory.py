"""`squadron models add DIRECTORY` for every encoder family, with tiny random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from cluster.config.store import ModelStore
from cluster.optimization.add import add_model
from cluster.optimization.huggingface.families import ENCODERS

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.models

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
DISTILBERT_SIZES = {
    "vocab_size": 40,
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 32,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_encoder_directory_becomes_onnx_that_ignores_padding(tmp_path: Path, kind: str) -> None:
    sizes = DISTILBERT_SIZES if kind == "distilbert" else SIZES
    config = transformers.AutoConfig.for_model(kind, **sizes)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "tiny")
    store = ModelStore(tmp_path / "store")

    card = add_model(tmp_path / "tiny", store)

    assert (card.name, card.format, card.preprocess) == ("tiny", "onnx", None)
    assert tuple(tensor.name for tensor in card.signature.inputs) == ENCODERS[kind]
    assert card.signature.outputs[0].shape == [-1, -1, 16]
    assert card.batched
    session = onnxruntime.InferenceSession(
        store.folder("tiny") / card.artefact, providers=["CPUExecutionProvider"]
    )
    short = run(session, ids=[[5, 6, 7]], mask=[[1, 1, 1]])
    padded = run(session, ids=[[5, 6, 7, 1, 1]], mask=[[1, 1, 1, 0, 0]])
    np.testing.assert_allclose(short[0], padded[0, :3], atol=1e-5)


def run(
    session: onnxruntime.InferenceSession, ids: list[list[int]], mask: list[list[int]]
) -> np.ndarray:  # type: ignore[type-arg]
    tensors = {
        "input_ids": np.array(ids, dtype=np.int64),
        "attention_mask": np.array(mask, dtype=np.int64),
        "token_type_ids": np.zeros_like(np.array(ids, dtype=np.int64)),
    }
    taken = [node.name for node in session.get_inputs()]
    return np.asarray(session.run(None, {name: tensors[name] for name in taken})[0])
