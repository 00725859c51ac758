"""What Triton's sequence and decoupled examples do."""

from __future__ import annotations

import queue
import uuid
from functools import partial
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException

from tests.conformance.clients.asking import MODULES, address, client, need
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e]
both = pytest.mark.parametrize("transport", ["http", "grpc"])
VALUES = [11, 7, 5, 3, 2, 0, 1]


@pytest.fixture(autouse=True)
def _sequences(triton_models: Running) -> None:
    need(triton_models, "sequence")


def step(module: Any, value: int) -> list[Any]:
    given = module.InferInput("INPUT", [1, 1], "INT32")
    given.set_data_from_numpy(np.array([[value]], np.int32))
    return [given]


def flags(position: int, length: int) -> dict[str, bool]:
    return {"sequence_start": position == 0, "sequence_end": position == length - 1}


def expected(model: str, values: list[int], sequence_id: int | str) -> list[int]:
    """What the model makes of the values of one sequence."""
    if model == "simple_string_dyna_sequence":
        sums = [sum(values[: i + 1]) for i in range(len(values))]
        return [*sums[:-1], sums[-1] + int(sequence_id)]
    found = [values[0] + 1, *values[1:]]
    if model == "simple_dyna_sequence":
        found[-1] += int(sequence_id)
    return found


@both
@pytest.mark.slice
@pytest.mark.parametrize("model", ["simple_sequence", "simple_dyna_sequence"])
def test_two_sequences_at_once(triton_models: Running, transport: str, model: str) -> None:
    module = MODULES[transport]
    sequences = {1007: [0, *VALUES], 1008: [100, *(-value for value in VALUES)]}
    found: dict[int, list[int]] = {each: [] for each in sequences}
    with client(triton_models, transport) as asking:
        for position in range(len(VALUES) + 1):
            for each, values in sequences.items():
                answer = asking.infer(
                    model,
                    step(module, values[position]),
                    request_id=f"{each}_{position}",
                    sequence_id=each,
                    **flags(position, len(values)),
                )
                assert answer.get_response()
                found[each].append(int(answer.as_numpy("OUTPUT")[0, 0]))

    assert found == {each: expected(model, sequences[each], each) for each in sequences}


@both
async def test_a_sequence_with_the_asyncio_clients(triton_models: Running, transport: str) -> None:
    module: Any = http_aio if transport == "http" else grpc_aio
    values, found = [0, *VALUES], []
    async with module.InferenceServerClient(address(triton_models, transport)) as asking:
        for position, value in enumerate(values):
            answer = await asking.infer(
                "simple_sequence",
                step(module, value),
                sequence_id=2001,
                **flags(position, len(values)),
            )
            found.append(int(answer.as_numpy("OUTPUT")[0, 0]))

    assert found == expected("simple_sequence", values, 2001)


@pytest.mark.parametrize("is_dynamic", [False, True])
def test_three_sequences_over_one_stream(triton_models: Running, is_dynamic: bool) -> None:
    """Two ids are numbers, the third is text: a UUID, or digits where a model computes with it."""
    number_model = "simple_dyna_sequence" if is_dynamic else "simple_sequence"
    text_model = "simple_string_dyna_sequence" if is_dynamic else "simple_sequence"
    sequences: dict[int | str, tuple[str, list[int]]] = {
        1000: (number_model, [0, *VALUES]),
        1001: (number_model, [100, *(-value for value in VALUES)]),
        "1002" if is_dynamic else str(uuid.uuid4()): (
            text_model,
            [20, *(-value for value in VALUES)],
        ),
    }
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def collect(kept: queue.Queue[tuple[Any, Any]], result: Any, error: Any) -> None:
        kept.put((result, error))

    found: dict[str, list[tuple[int, int]]] = {str(each): [] for each in sequences}
    with client(triton_models, "grpc") as asking:
        asking.start_stream(partial(collect, answers))
        for each, (model, values) in sequences.items():
            for position, value in enumerate(values):
                asking.async_stream_infer(
                    model,
                    step(grpc_client, value),
                    request_id=f"{each}_{position}",
                    sequence_id=each,
                    **flags(position, len(values)),
                )
        for _ in range(3 * (len(VALUES) + 1)):
            result, error = answers.get(timeout=30)
            assert error is None, error
            name, _, position = result.get_response().id.rpartition("_")
            found[name].append((int(position), int(result.as_numpy("OUTPUT")[0, 0])))

    for each, (model, values) in sequences.items():
        assert found[str(each)] == list(enumerate(expected(model, values, each)))


@both
def test_a_sequence_must_be_started(triton_models: Running, transport: str) -> None:
    with (
        client(triton_models, transport) as asking,
        pytest.raises(InferenceServerException, match="must specify the START flag"),
    ):
        asking.infer("simple_sequence", step(MODULES[transport], 1), sequence_id=9999)


def test_a_decoupled_model_answers_once_an_element(triton_models: Running) -> None:
    inputs = []
    for name, values, datatype, dtype in (
        ("IN", range(10), "INT32", np.int32),
        ("DELAY", [1] * 10, "UINT32", np.uint32),
        ("WAIT", [1], "UINT32", np.uint32),
    ):
        array = np.array(list(values), dtype)
        given = grpc_client.InferInput(name, list(array.shape), datatype)
        given.set_data_from_numpy(array)
        inputs.append(given)
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def collect(kept: queue.Queue[tuple[Any, Any]], result: Any, error: Any) -> None:
        kept.put((result, error))

    found: list[int] = []
    with client(triton_models, "grpc") as asking:
        asking.start_stream(partial(collect, answers))
        asking.async_stream_infer(
            "repeat_int32", inputs, request_id="0", enable_empty_final_response=True
        )
        is_last = False
        while not is_last:
            result, error = answers.get(timeout=30)
            assert error is None, error
            response = result.get_response()
            is_last = response.parameters["triton_final_response"].bool_param
            if response.outputs:
                found.append(int(result.as_numpy("OUT")[0]))

    assert found == list(range(10))
