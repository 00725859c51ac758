"""The python engine with a decoupled card, and the example classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cluster.engines.engine import EngineSetup, StreamingEngine
from cluster.engines.python import LoadContext, PythonEngine
from cluster.errors import ConfigError, EngineFailed, InvalidRequest
from cluster.requests import Parameter
from cluster.tensors import Array
from tests.contracts.tiny_models import card
from tests.stateful_models import CARDS


class Steps:
    """Yields its input as often as asked; notes when it is ended."""

    notes: list[str]

    def load(self, context: LoadContext) -> None:
        Steps.notes = []

    def stream(
        self, inputs: dict[str, Array], parameters: dict[str, Parameter]
    ) -> Iterator[dict[str, Array]]:
        try:
            for _ in range(int(parameters.get("times", 1))):
                yield {"y": inputs["x"]}
            if "wrong" in parameters:
                yield {"y": inputs["x"].astype(np.float64)}
        finally:
            Steps.notes.append("ended")


class NoStream:
    def load(self, context: LoadContext) -> None: ...

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return inputs


def engine(folder: Path, made: type, **changes: Any) -> PythonEngine:
    fields: dict[str, Any] = {
        "format": "python",
        "python_class": f"{made.__module__}:{made.__name__}",
        "decoupled": True,
    }
    return PythonEngine(EngineSetup(card=card(**fields | changes), folder=folder))


@pytest.fixture
def steps(tmp_path: Path) -> PythonEngine:
    made = engine(tmp_path, Steps)
    made.load()
    return made


X = {"x": np.ones((1, 4), np.float32)}


def test_every_thing_yielded_is_a_response(steps: PythonEngine) -> None:
    assert isinstance(steps, StreamingEngine)
    assert len(list(steps.stream(X, {"times": 3}))) == 3
    assert Steps.notes == ["ended"]


def test_closing_a_stream_ends_the_users_generator(steps: PythonEngine) -> None:
    stream = steps.stream(X, {"times": 3})
    next(stream)
    stream.close()

    assert Steps.notes == ["ended"]


def test_warm_up_takes_the_first_response_only(steps: PythonEngine) -> None:
    steps.warm_up((1,))

    assert Steps.notes == ["ended"]


def test_inputs_and_outputs_are_checked(steps: PythonEngine) -> None:
    with pytest.raises(InvalidRequest):
        next(steps.stream({}, {}))
    with pytest.raises(EngineFailed, match="expected datatype FP32, got FP64"):
        list(steps.stream(X, {"wrong": True}))


def test_a_decoupled_class_needs_a_stream(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no method 'stream'"):
        engine(tmp_path, NoStream).load()


def test_only_python_models_are_decoupled() -> None:
    with pytest.raises(ValidationError, match="python, causal_lm or huggingface, not onnx"):
        card(format="onnx", artefact="m.onnx", decoupled=True)


def example(name: str, folder: Path) -> PythonEngine:
    made = PythonEngine(EngineSetup(card=card(**CARDS[name]), folder=folder))
    made.load()
    return made


def test_repeat_int32_gives_a_response_an_element(tmp_path: Path) -> None:
    inputs = {
        "IN": np.array([4, 2], np.int32),
        "DELAY": np.array([1, 0], np.uint32),
        "WAIT": np.array([0], np.uint32),
    }
    found = list(example("repeat_int32", tmp_path).stream(inputs, {}))

    assert [(r["OUT"].tolist(), r["IDX"].tolist()) for r in found] == [([4], [0]), ([2], [1])]
    with pytest.raises(InvalidRequest, match="IN and DELAY must have the same length"):
        list(example("repeat_int32", tmp_path).stream({**inputs, "IN": inputs["IN"][:1]}, {}))


def test_mock_llm_repeats_its_prompt_and_fails_when_told_to(tmp_path: Path) -> None:
    llm = example("mock_llm", tmp_path)
    inputs = {"PROMPT": np.array([[b"hi"]], object), "STREAM": np.array([[True]])}
    stream = llm.stream(inputs, {"REPETITION": 2, "FAIL_LAST": True})

    assert [next(stream)["TEXT"].tolist() for _ in range(2)] == [[[b"hi"]]] * 2
    with pytest.raises(EngineFailed, match="An Error Occurred"):
        next(stream)
