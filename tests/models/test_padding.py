"""A real encoder that takes token ids: requests of different lengths in one batch."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import prometheus_client.values
import pytest

from actors.model_replica import ModelReplica, ReplicaSetup
from cluster.config.store import ModelStore
from cluster.config.variant import BatchingConfig
from cluster.protocols.envelope import Call, Reply
from cluster.tensors import tensor

pytestmark = pytest.mark.models
LENGTHS = (5, 11, 8)


def call(number: int, length: int) -> Call:
    rng = np.random.default_rng(number)
    ids = rng.integers(1000, 20000, (1, length))
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids}
    inputs = tuple(tensor(name, array.astype(np.int64)) for name, array in arrays.items())
    return Call(call_id=number, rows=1, left_s=60.0, inputs=inputs)


def states(reply: Reply) -> np.ndarray:
    assert reply.error is None, reply.error
    (found,) = (each.array for each in reply.outputs if each.name == "last_hidden_state")
    return found


async def test_padded_requests_share_a_batch_and_answer_as_alone(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus_client.values, "ValueClass", prometheus_client.values.ValueClass)
    setup = ReplicaSetup(
        variant="v",
        card=store.card("all-minilm-l6-v2"),
        folder=store.folder("all-minilm-l6-v2"),
        engine="onnxruntime",
        device="cpu",
        threads=1,
        is_processed=False,
        batching=BatchingConfig(
            max_batch_size=4,
            max_queue_delay_us=2_000_000,
            preferred_batch_sizes=(3,),
            padding={"input_ids": 0, "attention_mask": 0, "token_type_ids": 0},
        ),
    )
    replica = ModelReplica(setup, metrics_at=tmp_path / "metrics")
    try:
        together = await replica.answer([call(n, length) for n, length in enumerate(LENGTHS)])
        alone = [
            (await asyncio.wait_for(replica.answer([call(n, length)]), 30))[0]
            for n, length in enumerate(LENGTHS)
        ]
    finally:
        await replica.close()

    assert [reply.batch_rows for reply in together] == [3, 3, 3]
    for reply, single, length in zip(together, alone, LENGTHS, strict=True):
        assert states(reply).shape == (1, length, 384)
        assert np.abs(states(reply) - states(single)).max() < 1e-5
