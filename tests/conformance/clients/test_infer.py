"""What Triton's inference examples do, with both blocking clients."""

from __future__ import annotations

import queue
from functools import partial
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from tests.conformance.clients.asking import (
    MODULES,
    A,
    B,
    check_simple,
    client,
    extensions,
    pair,
    texts,
)
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e]
both = pytest.mark.parametrize("transport", ["http", "grpc"])


def wanted(module: Any, **how: Any) -> list[Any]:
    return [module.InferRequestedOutput(name, **how) for name in ("OUTPUT0", "OUTPUT1")]


@both
@pytest.mark.slice
def test_health_and_metadata(triton_models: Running, transport: str) -> None:
    form = {"as_json": True} if transport == "grpc" else {}
    with client(triton_models, transport) as asking:
        assert asking.is_server_live()
        assert asking.is_server_ready()
        assert asking.is_model_ready("simple")
        server = asking.get_server_metadata(**form)
        model = asking.get_model_metadata("simple", **form)
        with pytest.raises(InferenceServerException, match="Request for unknown model"):
            asking.get_model_metadata("wrong_model_name")

    assert server["name"] == "triton"
    assert {"classification", "binary_tensor_data"} <= set(server["extensions"])
    assert model["name"] == "simple"
    assert model["platform"] == "onnxruntime_onnx"


@both
@pytest.mark.slice
def test_sum_and_difference(triton_models: Running, transport: str) -> None:
    module = MODULES[transport]
    with client(triton_models, transport) as asking:
        result = asking.infer("simple", pair(module), outputs=wanted(module), request_id="1_a")
        check_simple(result)
        check_simple(asking.infer("simple", pair(module)))
        statistics = asking.get_inference_statistics("simple")

    entries = statistics["model_stats"] if transport == "http" else statistics.model_stats
    assert len(entries) == 1


@pytest.mark.parametrize("answer_in_binary", [True, False])
@pytest.mark.parametrize("asked_in_binary", [True, False])
def test_http_in_json_and_in_binary(
    triton_models: Running, asked_in_binary: bool, answer_in_binary: bool
) -> None:
    with client(triton_models, "http") as asking:
        result = asking.infer(
            "simple",
            pair(http_client, binary_data=asked_in_binary),
            outputs=wanted(http_client, binary_data=answer_in_binary),
            query_params={"test_1": 1, "test_2": 2},
            headers={"test": "1"},
        )

    check_simple(result)


@pytest.mark.parametrize("back", [None, "gzip", "deflate"])
@pytest.mark.parametrize("forth", [None, "gzip", "deflate"])
def test_http_compressed_both_ways(
    triton_models: Running, forth: str | None, back: str | None
) -> None:
    with client(triton_models, "http") as asking:
        result = asking.infer(
            "simple",
            pair(http_client),
            request_compression_algorithm=forth,
            response_compression_algorithm=back,
        )

    check_simple(result)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_grpc_compressed(triton_models: Running, algorithm: str) -> None:
    with client(triton_models, "grpc") as asking:
        result = asking.infer(
            "simple", pair(grpc_client), compression_algorithm=algorithm, headers={"test": "1"}
        )

    check_simple(result)


@both
def test_an_unknown_model_is_told_in_tritons_words(triton_models: Running, transport: str) -> None:
    with (
        client(triton_models, transport) as asking,
        pytest.raises(InferenceServerException) as caught,
    ):
        asking.infer("wrong_model_name", pair(MODULES[transport]))

    assert caught.value.message().startswith("Request for unknown model")


def test_http_many_at_once(triton_models: Running) -> None:
    with client(triton_models, "http", concurrency=4) as asking:
        under_way = [asking.async_infer("simple", pair(http_client)) for _ in range(16)]
        for each in under_way:
            check_simple(each.get_result())


def test_grpc_with_a_callback(triton_models: Running) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def collect(kept: queue.Queue[tuple[Any, Any]], result: Any, error: Any) -> None:
        kept.put((result, error))

    with client(triton_models, "grpc") as asking:
        for _ in range(16):
            asking.async_infer(
                "simple", pair(grpc_client), callback=partial(collect, answers), client_timeout=30
            )
        for _ in range(16):
            result, error = answers.get(timeout=30)
            assert error is None
            check_simple(result)


@both
def test_int8(triton_models: Running, transport: str) -> None:
    module, a, b = MODULES[transport], A.astype(np.int8), B.astype(np.int8)
    with client(triton_models, transport) as asking:
        check_simple(asking.infer("simple_int8", pair(module, a, b, "INT8")), a, b)


@both
@pytest.mark.slice
def test_decimal_text(triton_models: Running, transport: str) -> None:
    module = MODULES[transport]
    with client(triton_models, transport) as asking:
        result = asking.infer("simple_string", pair(module, texts(A), texts(B), "BYTES"))

    found = result.as_numpy("OUTPUT0"), result.as_numpy("OUTPUT1")
    assert [int(each) for each in found[0].flat] == (A + B).flatten().tolist()
    assert [int(each) for each in found[1].flat] == (A - B).flatten().tolist()


def test_http_text_in_json(triton_models: Running) -> None:
    first, second = texts(A).astype(str).astype(object), texts(B).astype(str).astype(object)
    with client(triton_models, "http") as asking:
        result = asking.infer(
            "simple_string",
            pair(http_client, first, second, "BYTES", binary_data=False),
            outputs=wanted(http_client, binary_data=False),
        )

    assert [int(each) for each in result.as_numpy("OUTPUT0").flat] == (A + B).flatten().tolist()


@both
def test_any_bytes_come_back(triton_models: Running, transport: str) -> None:
    module = MODULES[transport]
    sent = np.array([[b"", b"\x00", b"he\x00llo", "ümläut".encode(), bytes(range(256))]], object)
    given = module.InferInput("INPUT0", list(sent.shape), "BYTES")
    given.set_data_from_numpy(sent)
    with client(triton_models, transport) as asking:
        result = asking.infer("simple_identity", [given])

    assert result.as_numpy("OUTPUT0").tolist() == sent.tolist()


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_input_and_output_objects_may_be_used_again(triton_models: Running, transport: str) -> None:
    module = MODULES[transport]
    inputs, outputs = pair(module), wanted(module)
    with client(triton_models, transport) as asking:
        check_simple(asking.infer("simple", inputs, outputs=outputs))
        inputs[0].set_data_from_numpy(B)
        inputs[1].set_data_from_numpy(A)
        check_simple(asking.infer("simple", inputs, outputs=outputs), B, A)
        check_simple(asking.infer("simple", inputs), B, A)


@both
def test_the_index_lists_every_model_of_the_configuration(
    triton_models: Running, transport: str
) -> None:
    with client(triton_models, transport) as asking:
        index = asking.get_model_repository_index()
    entries = index if transport == "http" else index.models

    names = {entry["name"] if transport == "http" else entry.name for entry in entries}
    assert len(entries) == len(names)
    assert {"simple", "simple_int8", "simple_string", "simple_identity"} <= names


def test_only_extensions_that_are_known_are_named(triton_models: Running) -> None:
    known = {
        "classification", "sequence", "sequence(string_id)", "model_repository",
        "model_repository(unload_dependents)", "schedule_policy", "model_configuration",
        "system_shared_memory", "cuda_shared_memory", "binary_tensor_data", "parameters",
        "statistics", "trace", "logging", "generate",
    }  # fmt: skip

    assert set(extensions(triton_models)) <= known
