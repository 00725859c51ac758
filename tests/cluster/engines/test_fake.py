from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest

from cluster.engines.engine import EngineSetup
from cluster.engines.fake import EXIT_STATUS, FakeEngine
from cluster.errors import ConfigError, EngineFailed
from cluster.tensors import NUMPY_DTYPES, Datatype, bytes_array
from tests.contracts.tiny_models import card


def fake(
    inputs: list[tuple[str, str]] | None = None,
    outputs: list[tuple[str, str]] | None = None,
    **options: str | int | float | bool,
) -> FakeEngine:
    def tensors(pairs: list[tuple[str, str]]) -> list[dict[str, object]]:
        return [{"name": name, "datatype": kind, "shape": [-1, 2]} for name, kind in pairs]

    made = card(
        signature={
            "inputs": tensors(inputs or [("x", "FP32")]),
            "outputs": tensors(outputs or [("y", "FP32")]),
        }
    )
    engine = FakeEngine(EngineSetup(card=made, folder=Path("unused"), options=options))
    engine.load()
    return engine


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64", "INT8", "INT64", "UINT16"])
def test_numbers_are_doubled_plus_one_in_every_datatype(datatype: Datatype) -> None:
    engine = fake([("x", datatype)], [("y", datatype)])
    found = engine.infer({"x": np.array([[1, 3]], dtype=NUMPY_DTYPES[datatype])})["y"]

    assert found.dtype == NUMPY_DTYPES[datatype]
    assert found.astype(float).tolist() == [[3.0, 7.0]]


def test_integers_wrap_around() -> None:
    engine = fake([("x", "UINT8")], [("y", "UINT8")])

    assert engine.infer({"x": np.array([[200, 127]], np.uint8)})["y"].tolist() == [[145, 255]]


def test_text_and_truth_values_come_back_unchanged() -> None:
    engine = fake([("t", "BYTES"), ("b", "BOOL")], [("t2", "BYTES"), ("b2", "BOOL")])
    found = engine.infer(
        {"t": bytes_array([b"a\0", b"\xff"], (1, 2)), "b": np.array([[True, False]])}
    )

    assert found["t2"].tolist() == [[b"a\0", b"\xff"]]
    assert found["b2"].tolist() == [[True, False]]


def test_outputs_without_an_input_of_their_own_are_made_of_the_last() -> None:
    engine = fake(None, [("y", "FP32"), ("z", "FP64")])
    found = engine.infer({"x": np.array([[1.5, 2]], np.float32)})

    assert {name: array.tolist() for name, array in found.items()} == {
        "y": [[4.0, 5.0]],
        "z": [[4.0, 5.0]],
    }


def test_text_cannot_be_made_of_numbers() -> None:
    with pytest.raises(ConfigError, match="output 'y'"):
        fake([("x", "FP32")], [("y", "BYTES")])


def test_a_value_may_make_the_batch_fail_and_the_next_one_is_answered() -> None:
    engine = fake(crash_on=13)
    engine.warm_up((1, 4))

    with pytest.raises(EngineFailed, match="13"):
        engine.infer({"x": np.array([[1, 2], [3, 13]], np.float32)})
    assert engine.infer({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[3.0, 3.0]]


def test_zero_as_the_value_to_fail_on_leaves_the_warm_up_alone() -> None:
    engine = fake(crash_on=0)
    engine.warm_up((1,))

    with pytest.raises(EngineFailed):
        engine.infer({"x": np.zeros((1, 2), np.float32)})


def test_a_word_may_make_the_batch_fail() -> None:
    engine = fake([("t", "BYTES")], [("u", "BYTES")], crash_on="boom")

    with pytest.raises(EngineFailed):
        engine.infer({"t": bytes_array([b"a", b"boom"], (1, 2))})


def test_a_value_may_end_the_process() -> None:
    process = multiprocessing.get_context("spawn").Process(target=_infer_the_end)
    process.start()
    process.join(60)

    assert process.exitcode == EXIT_STATUS


def _infer_the_end() -> None:
    fake(exit_on=99).infer({"x": np.full((1, 2), 99, np.float32)})
    raise SystemExit(42)


def test_a_batch_takes_at_least_the_delay_and_the_warm_up_does_not() -> None:
    engine = fake(delay_ms=30)
    engine_slow = fake(delay_ms=3_600_000)
    engine_slow.warm_up((1,))
    started_s = time.monotonic()
    engine.infer({"x": np.zeros((1, 2), np.float32)})

    assert time.monotonic() - started_s >= 0.029


def test_a_delay_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="is a number, got 'long'"):
        fake(delay_ms="long")
