"""Requests of different lengths in one run of a real ONNX graph."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from actors.model_replica import ModelReplica, ReplicaSetup
from cluster.config.model_card import ModelCard
from cluster.config.variant import BatchingConfig
from cluster.observability.metrics import make_metrics
from cluster.protocols.envelope import Call, Reply
from cluster.tensors import tensor
from tests.triton_repository import write_sums


def call(number: int, *rows: list[float]) -> Call:
    x = tensor("x", np.array(rows, np.float32).reshape(len(rows), -1))
    return Call(call_id=number, rows=len(rows), left_s=30.0, inputs=(x,))


async def test_rows_of_different_lengths_share_a_batch_and_each_gets_its_own_sum(
    tmp_path: Path,
) -> None:
    write_sums(tmp_path / "model.onnx")
    card = ModelCard.model_validate(
        {
            "name": "sums",
            "format": "onnx",
            "artefact": "model.onnx",
            "batched": False,
            "signature": {
                "inputs": [
                    {"name": "x", "datatype": "FP32", "shape": [-1]},
                    {"name": "ends", "datatype": "INT64", "shape": [-1]},
                ],
                "outputs": [{"name": "sum", "datatype": "FP32", "shape": [-1, 1]}],
            },
        }
    )
    kind = {"kind": "accumulated_element_count_with_zero", "source": "x"}
    setup = ReplicaSetup(
        variant="sums",
        card=card,
        folder=tmp_path,
        engine="onnxruntime",
        device="cpu",
        threads=1,
        is_processed=True,
        batching=BatchingConfig.model_validate(
            {"max_batch_size": 8, "ragged": {"inputs": ["x"], "batch_inputs": {"ends": kind}}}
        ),
    )
    replica = ModelReplica(setup, metrics=make_metrics(tmp_path / "metrics"))
    calls = [call(1, [1, 2, 3]), call(2, [4], [5]), call(3, [6, 7])]

    replies: list[Reply] = await replica.answer(calls)
    alone = await asyncio.gather(*(replica.answer([each]) for each in calls))
    await replica.close()

    found = {reply.call_id: reply.outputs[0].array.tolist() for reply in replies}
    assert found == {1: [[6]], 2: [[4], [5]], 3: [[13]]}
    assert {reply.batch_rows for reply in replies} == {4}
    assert [each[0].outputs[0].array.tolist() for each in alone] == list(found.values())
