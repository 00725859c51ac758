from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult, service_pb2
from tritonclient.grpc._utils import _get_inference_request

from cluster.errors import InvalidRequest, Overloaded, RequestError, Unsupported
from cluster.protocols import v2_grpc
from cluster.protocols.v2_model import ModelDescription
from cluster.requests import RequestedOutput
from cluster.tensors import DATATYPES, NUMPY_DTYPES, Datatype, Signature, Tensor, TensorSpec
from tests.cluster.protocols.making import answer, asked, floats, is_same, tensors

Request = service_pb2.ModelInferRequest


def message(*inputs: dict[str, Any], raw: tuple[bytes, ...] = (), **fields: Any) -> bytes:
    """A public `ModelInferRequest` for model `simple`; an input has name x unless it says so."""
    entries = [{"name": "x", **entry} for entry in inputs]
    made = Request(model_name="simple", inputs=entries, raw_input_contents=raw, **fields)
    data: bytes = made.SerializeToString()
    return data


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        v2_grpc.decode_infer(data)
    return caught.value.message


def client_input(sent: Tensor) -> InferInput:
    made = InferInput(sent.name, list(sent.shape), sent.datatype)
    made.set_data_from_numpy(sent.array)
    return made


@settings(deadline=None)
@given(sent=tensors(), other=tensors(name="y"))
def test_requests_of_a_public_client_are_understood(sent: Tensor, other: Tensor) -> None:
    made = _get_inference_request(
        model_name="simple",
        inputs=[client_input(sent), client_input(other)],
        model_version="2",
        request_id="r",
        outputs=[InferRequestedOutput("a", class_count=3), InferRequestedOutput("b")],
        sequence_id=7,
        sequence_start=True,
        sequence_end=False,
        priority=1,
        timeout=10,
        parameters={"note": "n", "scale": 0.5},
    )

    got = v2_grpc.decode_infer(made.SerializeToString())

    assert (got.model, got.version, got.request_id, got.priority) == ("simple", "2", "r", 1)
    assert is_same(got.inputs[0], sent)
    assert is_same(got.inputs[1], other)
    assert [(item.name, item.num_classes) for item in got.outputs] == [("a", 3), ("b", 0)]
    assert got.parameters == {
        "sequence_id": 7,
        "sequence_start": True,
        "sequence_end": False,
        "priority": 1,
        "timeout": 10,
        "note": "n",
        "scale": 0.5,
    }


@settings(deadline=None)
@given(sent=tensors(), other=tensors(name="y"))
def test_a_public_client_understands_the_answers(sent: Tensor, other: Tensor) -> None:
    data = v2_grpc.encode_infer(answer(sent, other, variant="v"), asked(request_id="r"))
    parsed = service_pb2.ModelInferResponse.FromString(data)
    result = InferResult(parsed)

    assert (parsed.model_name, parsed.model_version, parsed.id) == ("m", "1", "r")
    assert parsed.parameters["squadron_variant"].string_param == "v"
    for tensor in (sent, other):
        got = result.as_numpy(tensor.name).astype(tensor.array.dtype)
        assert is_same(Tensor(name=tensor.name, datatype=tensor.datatype, array=got), tensor)


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"FP16", "BF16", "BYTES"}))
def test_typed_contents_are_read_for_every_datatype(datatype: Datatype) -> None:
    field = v2_grpc.contents_field(datatype)

    got = v2_grpc.decode_infer(
        message({"datatype": datatype, "shape": [1, 2], "contents": {field: [1, 0]}})
    )

    assert got.inputs[0].array.tolist() == [[1, 0]]
    assert got.inputs[0].array.dtype == NUMPY_DTYPES[datatype]


def test_typed_bytes_and_floats_that_are_not_finite_are_read() -> None:
    got = v2_grpc.decode_infer(
        message(
            {"datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"\0\xff"]}},
            {
                "name": "y",
                "datatype": "FP32",
                "shape": [1],
                "contents": {"fp32_contents": [float("inf")]},
            },
        )
    )

    assert [item.array.tolist() for item in got.inputs] == [[b"\0\xff"], [float("inf")]]


def test_raw_contents_become_views_not_lists() -> None:
    got = v2_grpc.decode_infer(message({"datatype": "FP32", "shape": [2]}, raw=(bytes(8),)))

    assert not got.inputs[0].array.flags.owndata


INT32 = {"datatype": "INT32", "shape": [2]}
TWO = {"int_contents": [1, 2]}


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        (b"\xff", ["failed to parse 1 bytes as ModelInferRequest"]),
        (
            message({**INT32, "name": "INPUT0", "contents": TWO}, raw=(bytes(8),)),
            [
                "contents field must not be specified when using raw_input_contents for 'INPUT0' "
                "for model 'simple'"
            ],
        ),
        (message(INT32, raw=(bytes(8), b"")), ["raw_input_contents", "1 inputs", "got 2"]),
        (message(INT32, raw=(bytes(7),)), ["'x'", "Expected 8 bytes for INT32 [2], got 7"]),
        (message({**INT32, "shape": [-2]}, raw=(bytes(8),)), ["shape of input 'x'", "-2"]),
        (message({**INT32, "datatype": "int32"}, raw=(bytes(8),)), ["'x'", "'int32'"]),
        (message({**INT32, "name": ""}, raw=(bytes(8),)), ["'name' of an input"]),
        (message(INT32), ["int_contents has 0 elements", "needs 2"]),
        (message({**INT32, "contents": {"fp32_contents": [1.0]}}), ["INT32", "fp32_contents"]),
        (
            message({**INT32, "contents": {"fp32_contents": [1.0], **TWO}}),
            ["belongs in int_contents", "int_contents, fp32_contents"],
        ),
        (
            message({"datatype": "INT8", "shape": [1], "contents": {"int_contents": [200]}}),
            ["'x'", "out of range for INT8", "200"],
        ),
        (message({"datatype": "FP16", "shape": [0]}), ["FP16", "raw_input_contents"]),
        (
            message({**INT32, "contents": TWO}, {**INT32, "contents": TWO}),
            ["input 'x' already exists"],
        ),
        (message(outputs=[{"name": "y"}] * 2), ["output 'y' already exists in request"]),
        (message(outputs=[{}]), ["'name' of an output"]),
        (message(parameters={"a": {}}), ["parameter 'a'", "null"]),
        (message(parameters={"triton_x": {"bool_param": True}}), ["triton_x", "reserved"]),
        (message(parameters={"priority": {"int64_param": -1}}), ["'priority'", "-1"]),
        (message(parameters={"timeout": {"string_param": "1"}}), ["'timeout'", "'1'"]),
    ],
)
def test_a_mistake_is_named_with_what_was_expected_and_what_came(
    data: bytes, facts: list[str]
) -> None:
    text = refusal(data)

    for fact in facts:
        assert fact in text


def test_the_reserved_parameter_of_decoupled_models_is_allowed() -> None:
    key = "triton_enable_empty_final_response"

    got = v2_grpc.decode_infer(message(parameters={key: {"bool_param": True}}))

    assert got.parameters == {key: True}


@pytest.mark.parametrize("raw", [(), (bytes(8),)])
def test_shared_memory_is_unsupported_and_the_region_is_named(raw: tuple[bytes, ...]) -> None:
    parameters = {
        "shared_memory_region": {"string_param": "input_data"},
        "shared_memory_byte_size": {"int64_param": 8},
    }
    shared = {**INT32, "parameters": parameters}

    with pytest.raises(Unsupported, match="input_data"):
        v2_grpc.decode_infer(message(shared, {**INT32, "name": "y"}, raw=raw))


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=80))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        outcome = v2_grpc.decode_infer(data).model
    except RequestError as error:
        outcome = error.message
    assert isinstance(outcome, str)


_entries = st.fixed_dictionaries(
    {"name": st.sampled_from(["x", "y", ""])},
    optional={
        "datatype": st.sampled_from([*DATATYPES, "FLOAT"]),
        "shape": st.lists(st.integers(-1, 3) | st.just(2**62), max_size=4),
        "contents": st.fixed_dictionaries(
            {},
            optional={
                "bool_contents": st.lists(st.booleans(), max_size=3),
                "int_contents": st.lists(st.integers(-300, 300), max_size=3),
                "fp32_contents": st.lists(st.floats(width=32), max_size=3),
                "bytes_contents": st.lists(st.binary(max_size=3), max_size=3),
            },
        ),
    },
)


@settings(deadline=None, max_examples=300)
@given(
    inputs=st.lists(_entries, max_size=2),
    raw=st.lists(st.binary(max_size=9), max_size=2).map(tuple),
)
def test_any_message_is_decoded_or_refused(inputs: Any, raw: tuple[bytes, ...]) -> None:
    try:
        outcome = v2_grpc.decode_infer(message(*inputs, raw=raw)).model
    except RequestError as error:
        outcome = error.message
    assert outcome


def test_answer_parameters_keep_their_types() -> None:
    values = {"t": True, "i": -3, "u": 2**64 - 1, "d": 0.5, "s": "x"}

    parsed = service_pb2.ModelInferResponse.FromString(
        v2_grpc.encode_infer(answer(parameters=values), asked())
    )

    assert {
        key: (entry.WhichOneof("parameter_choice"), getattr(entry, f"{kind}_param"))
        for key, kind in zip("tiuds", ("bool", "int64", "uint64", "double", "string"), strict=True)
        for entry in [parsed.parameters[key]]
    } == {
        "t": ("bool_param", True),
        "i": ("int64_param", -3),
        "u": ("uint64_param", 2**64 - 1),
        "d": ("double_param", 0.5),
        "s": ("string_param", "x"),
    }


def test_classes_are_answered_with_their_labels() -> None:
    data = v2_grpc.encode_infer(
        answer(floats(0.25, 0.75)),
        asked(RequestedOutput(name="x", num_classes=1)),
        class_labels={"x": ["cat", "dog"]},
    )

    result = InferResult(service_pb2.ModelInferResponse.FromString(data))
    assert result.as_numpy("x").tolist() == [b"0.750000:1:dog"]


def test_a_stream_answer_is_marked_as_the_last_and_an_error_leaves_a_text() -> None:
    stream = service_pb2.ModelStreamInferResponse
    good = stream.FromString(v2_grpc.encode_stream_infer(answer(), asked(request_id="r")))
    bad = stream.FromString(v2_grpc.encode_stream_error(Overloaded("queue full"), "r"))

    assert good.infer_response.id == "r"
    assert good.infer_response.parameters["triton_final_response"].bool_param
    assert (bad.error_message, bad.infer_response.id) == ("queue full", "r")


def test_health_and_metadata_are_read_by_a_public_client() -> None:
    assert service_pb2.ServerLiveResponse.FromString(v2_grpc.encode_server_live(True)).live
    assert service_pb2.ServerReadyResponse.FromString(v2_grpc.encode_server_ready(True)).ready
    assert not service_pb2.ModelReadyResponse.FromString(v2_grpc.encode_model_ready(False)).ready

    server = service_pb2.ServerMetadataResponse.FromString(
        v2_grpc.encode_server_metadata("triton", "1", ("classification",))
    )
    assert (server.name, server.version, list(server.extensions)) == (
        "triton",
        "1",
        ["classification"],
    )


def test_names_and_filters_of_requests_are_read() -> None:
    named = service_pb2.ModelConfigRequest(name="m", version="2").SerializeToString()
    index = service_pb2.RepositoryIndexRequest(ready=True).SerializeToString()

    assert v2_grpc.decode_model_name("ModelConfig", named) == ("m", "2")
    assert v2_grpc.decode_repository_index(index) is True
    with pytest.raises(InvalidRequest, match="ModelReadyRequest"):
        v2_grpc.decode_model_name("ModelReady", b"\xff")


def test_the_repository_index_is_read_by_a_public_client() -> None:
    entry = {"name": "m", "version": "1", "state": "READY", "reason": ""}

    data = v2_grpc.encode_repository_index([entry])

    (got,) = service_pb2.RepositoryIndexResponse.FromString(data).models
    assert (got.name, got.version, got.state, got.reason) == ("m", "1", "READY", "")


def test_metadata_and_configuration_of_a_model_are_read_by_a_public_client() -> None:
    described = ModelDescription(
        name="m",
        versions=("3",),
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        signature=Signature(
            inputs=(TensorSpec(name="x", datatype="BYTES", shape=(-1, 1)),),
            outputs=(TensorSpec(name="y", datatype="BF16", shape=(-1, 4)),),
        ),
        max_batch_size=8,
        preferred_batch_sizes=(4,),
        max_queue_delay_us=500,
        num_instances=2,
        kind="KIND_GPU",
        parameters={"k": "v"},
    )

    metadata = service_pb2.ModelMetadataResponse.FromString(
        v2_grpc.encode_model_metadata(described)
    )
    config = service_pb2.ModelConfigResponse.FromString(
        v2_grpc.encode_model_config(described)
    ).config

    assert (metadata.inputs[0].name, list(metadata.inputs[0].shape)) == ("x", [-1, 1])
    assert (config.input[0].data_type, list(config.output[0].dims)) == (13, [4])
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert (config.instance_group[0].kind, config.instance_group[0].count) == (1, 2)
    assert config.parameters["k"].string_value == "v"
