"""Why a model fails stands in the log, and not for each of a thousand requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import orjson
import prometheus_client.values
import pytest

from actors.logs.failures import EVERY_S, Failures
from actors.logs.set_up import JsonLines
from actors.model_replica import ModelReplica, ReplicaSetup
from cluster.config.model_card import ModelCard
from cluster.config.variant import BatchingConfig
from cluster.errors import DeadlineExceeded, EngineFailed, InvalidRequest
from cluster.observability.metrics import make_metrics
from cluster.protocols.envelope import Call
from cluster.tensors import Tensor

CODE = """
class Moody:
    def load(self, context): pass
    def infer(self, inputs):
        if (inputs["x"] < 0).any():
            raise RuntimeError("no negative numbers")
        return {"y": inputs["x"]}
"""
CARD = {
    "name": "moody",
    "format": "python",
    "python_class": "moody_code.py:Moody",
    "signature": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    },
}
TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


def call(value: float = 0.0) -> Call:
    array = np.full((1, 1), value, np.float32)
    inputs = (Tensor(name="x", datatype="FP32", array=array),)
    return Call(call_id=1, rows=1, left_s=60.0, inputs=inputs, request_id="mine", trace=TRACE)


@pytest.fixture
async def replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ModelReplica]:
    monkeypatch.setattr(prometheus_client.values, "ValueClass", prometheus_client.values.ValueClass)
    (tmp_path / "moody_code.py").write_text(CODE)
    made = ModelReplica(
        ReplicaSetup(
            variant="moody",
            card=ModelCard.model_validate(CARD),
            folder=tmp_path,
            engine="python",
            device="cpu",
            threads=1,
            is_processed=True,
            batching=BatchingConfig(),
        ),
        metrics=make_metrics(tmp_path / "metrics"),
    )
    yield made
    await made.close()


def test_one_line_for_a_while_says_how_many_there_were(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 5.0
    failures = Failures("moody", lambda: now_s)
    for _ in range(4):
        failures.tell(EngineFailed("no"), call())
    now_s += EVERY_S
    failures.tell(ValueError("of ours"), call())

    first, second = caplog.messages
    assert first == "moody failed: no"
    assert second == "moody failed: ValueError; 3 more since the last such line"


@pytest.mark.parametrize("error", [InvalidRequest("wrong shape"), DeadlineExceeded("late")])
def test_what_callers_do_is_no_failure(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    Failures("moody").tell(error, call())

    assert caplog.messages == []


async def test_the_line_leads_to_the_code_that_failed_and_to_the_request(
    replica: ModelReplica, caplog: pytest.LogCaptureFixture
) -> None:
    (failed,) = await replica.answer([call(-1.0)])
    (good,) = await replica.answer([call(1.0)])

    assert isinstance(failed.error, EngineFailed)
    assert good.error is None
    (record,) = (each for each in caplog.records if each.name == "squadron.engine")
    line = orjson.loads(JsonLines({"role": "replica"}).format(record))
    assert line["level"] == "ERROR"
    assert "raised RuntimeError: no negative numbers" in line["message"]
    assert "moody_code.py" in line["error"]
    assert (line["request_id"], line["trace_id"]) == ("mine", TRACE[3:35])
