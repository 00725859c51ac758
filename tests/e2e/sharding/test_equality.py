"""Real models in shards against one process, in float32: the same logits and the same tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from cluster.config.store import ModelStore
from cluster.errors import ConfigError
from tests.e2e.sharding.groups import group, single

pytestmark = [pytest.mark.models, pytest.mark.timeout(400)]

PROMPTS = (
    "The capital of France is Paris, and the capital of Italy is",
    "Once upon a time there was a little girl who lived in a village near",
)


@pytest.fixture(scope="module")
def prompts(store: ModelStore) -> list[Any]:
    tokenizer = Tokenizer.from_file(str(store.folder("smollm2-135m") / "tokenizer.json"))
    return [np.array([tokenizer.encode(text).ids], np.int64) for text in PROMPTS]


@pytest.fixture(scope="module")
def logits(store: ModelStore, prompts: list[Any]) -> list[Any]:
    engine = single(store.card("smollm2-135m"), store.folder("smollm2-135m"))
    return [engine.infer({"input_ids": ids})["logits"] for ids in prompts]


@pytest.fixture(scope="module")
def tokens(store: ModelStore, prompts: list[Any]) -> list[int]:
    """The greedy continuation of the first prompt by one process, without any cache."""
    engine = single(store.card("smollm2-135m"), store.folder("smollm2-135m"))
    ids = prompts[0]
    for _ in range(8):
        best = engine.infer({"input_ids": ids})["logits"][0, -1].argmax()
        ids = np.concatenate([ids, [[best]]], axis=1)
    return list(map(int, ids[0, prompts[0].shape[1] :]))


@pytest.mark.parametrize(
    "placement",
    [
        pytest.param({"strategy": "layer", "shards": 2}, marks=pytest.mark.whole),
        pytest.param(
            {"strategy": "layer", "shards": 4, "transport": "tcp"}, marks=pytest.mark.whole
        ),
        pytest.param(
            {"strategy": "pipeline", "shards": 2, "transport": "gloo"}, marks=pytest.mark.whole
        ),
        {"strategy": "pipeline", "shards": 4, "kv_cache": "static"},
        {"strategy": "tensor", "shards": 3},
        pytest.param(
            {"shard_map": {"layers.0-9": "cpu", "layer_10_to_29": "cpu"}}, marks=pytest.mark.whole
        ),
    ],
    ids=str,
)
def test_smollm2_in_shards_computes_what_one_process_does(
    placement: dict[str, Any],
    store: ModelStore,
    prompts: list[Any],
    logits: list[Any],
    tokens: list[int],
) -> None:
    name = "smollm2-135m"
    with group(store.card(name), store.folder(name), **placement) as shards:
        found = [shards.infer({"input_ids": ids})["logits"] for ids in prompts]
        # Two rows travel as two micro-batches where the placement is a pipeline.
        twice = shards.infer({"input_ids": np.repeat(prompts[0], 2, axis=0)})["logits"]
        stream = shards.stream({"input_ids": prompts[0]}, {"max_tokens": 8})
        generated = [int(answer["token"][0]) for answer in stream]

    differences = [float(np.abs(a - b).max()) for a, b in zip(found, logits, strict=True)]
    print(f"{placement}: max abs difference of logits {max(differences):.1e}")
    assert max(differences) < 1e-4
    assert np.abs(twice - logits[0]).max() < 1e-4
    assert generated == tokens


@pytest.mark.parametrize("degree", [2, pytest.param(4, marks=pytest.mark.whole)])
def test_minilm_in_slices_computes_what_one_process_does(degree: int, store: ModelStore) -> None:
    name = "all-minilm-l6-v2-torch"
    ids = np.array([[101, 1037, 4937, 7719, 2006, 1996, 13523, 102]] * 2, np.int64)
    mask = np.ones_like(ids)
    mask[1, 5:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    wanted = single(store.card(name), store.folder(name)).infer(inputs)["last_hidden_state"]

    placement = {"strategy": "tensor", "shards": degree}
    with group(store.card(name), store.folder(name), **placement) as shards:
        found = shards.infer(inputs)["last_hidden_state"]

    assert np.abs(found - wanted).max() < 1e-4


@pytest.mark.parametrize("num_shards", [2, pytest.param(4, marks=pytest.mark.whole)])
def test_a_cut_onnx_graph_computes_what_the_whole_one_does(
    num_shards: int, store: ModelStore
) -> None:
    name = "efficientnet-lite0"
    card, folder = store.card(name), store.folder(name)
    images = np.random.default_rng(1).standard_normal((3, 3, 224, 224)).astype(np.float32)
    wanted = single(card, folder).infer({"image": images})["logits"]

    with group(card, folder, strategy="pipeline", shards=num_shards) as shards:
        found = shards.infer({"image": images})["logits"]

    assert np.abs(found - wanted).max() < 1e-4


def test_a_degree_that_does_not_divide_the_heads_is_refused(store: ModelStore) -> None:
    name = "smollm2-135m"
    with (
        pytest.raises(ConfigError, match="does not divide the 9 attention heads of layers 0 to 29"),
        group(store.card(name), store.folder(name), strategy="tensor", shards=2),
    ):
        pass
