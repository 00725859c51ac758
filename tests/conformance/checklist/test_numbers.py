"""Protocol sections 5.4 to 5.7: datatypes, raw bodies, compression and limits at a live server."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import grpc
import httpx
import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as http_client
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.conformance.checklist.conftest import Checked

pytestmark = [pytest.mark.e2e]
HALVES = [0.5, -1.25, 65504.0, 0.0]


def body(datatype: str, data: list[Any], **more: Any) -> dict[str, Any]:
    given = {"name": "x", "datatype": datatype, "shape": [1, len(data)], "data": data}
    return {"inputs": [given], **more}


@pytest.mark.parametrize(("model", "datatype"), [("half", "FP16"), ("brain", "BF16")])
def test_half_precision_is_read_and_written_as_json_numbers(
    checked: Checked, model: str, datatype: str
) -> None:
    values = HALVES if datatype == "FP16" else [0.5, -1.25, 2.0**20, 0.0]
    answer = checked.http.post(f"/v2/models/{model}/infer", json=body(datatype, values))

    (output,) = answer.json()["outputs"]
    assert (output["datatype"], output["data"]) == (datatype, values)


@pytest.mark.parametrize(
    ("model", "datatype", "dtype"),
    [("half", "FP16", np.float16), ("brain", "BF16", ml_dtypes.bfloat16)],
)
def test_half_precision_travels_in_binary_over_both_transports(
    checked: Checked, model: str, datatype: str, dtype: Any
) -> None:
    array = np.array([[0.5, -1.25, 3.0, 0.0]], dtype)
    given = http_client.InferInput("x", [1, 4], datatype)
    given.set_data_from_numpy(array)
    with http_client.InferenceServerClient(checked.server.http_address) as asking:
        found = asking.infer(model, [given]).as_numpy("y")
    assert found.astype(np.float32).tolist() == array.astype(np.float32).tolist()

    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype=datatype, shape=[1, 4])
    request.raw_input_contents.append(array.tobytes())
    with grpc.insecure_channel(checked.server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request, timeout=30)
    assert answer.raw_output_contents[0] == array.tobytes()


def test_a_value_that_half_precision_cannot_hold_is_refused(checked: Checked) -> None:
    answer = checked.http.post("/v2/models/half/infer", json=body("FP16", [1e6, 0, 0, 0]))

    assert answer.status_code == 400
    assert "FP16" in answer.json()["error"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_has_not_travel_as_strings(checked: Checked, value: str) -> None:
    answer = checked.http.post("/v2/models/numbers/infer", json=body("FP32", [value, 1.0]))

    assert answer.json()["outputs"][0]["data"] == [value, 1.0]


@pytest.mark.parametrize(
    ("model", "sent"), [("text", b"caf\xc3\xa9 \x00 raw"), ("numbers", b"\x00\x00\x80\x3f" * 3)]
)
def test_a_raw_body_is_the_only_input_and_comes_back_binary(
    checked: Checked, model: str, sent: bytes
) -> None:
    answer = checked.http.post(
        f"/v2/models/{model}/infer",
        content=sent,
        headers={"inference-header-content-length": "0"},
    )

    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    told, data = json.loads(answer.content[:length]), answer.content[length:]
    assert told["outputs"][0]["parameters"]["binary_data_size"] == len(data)
    assert data.endswith(sent)


def test_an_empty_tensor_of_bytes_has_no_bytes(checked: Checked) -> None:
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "datatype": "BYTES",
                    "shape": [1, 0],
                    "parameters": {"binary_data_size": 0},
                }
            ],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
    ).encode()
    answer = checked.http.post(
        "/v2/models/text/infer",
        content=head,
        headers={"inference-header-content-length": str(len(head))},
    )

    (output,) = json.loads(answer.content)["outputs"]
    assert (output["shape"], output["parameters"]["binary_data_size"]) == ([1, 0], 0)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bodies_travel_compressed_both_ways(checked: Checked, coding: str) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    sent = json.dumps(body("FP32", [1.5] * 4096)).encode()
    answer = checked.http.post(
        "/v2/models/numbers/infer",
        content=pack(sent),
        headers={"content-encoding": coding, "accept-encoding": coding},
    )

    assert answer.headers["content-encoding"] == coding
    assert answer.json()["outputs"][0]["data"] == [1.5] * 4096


def test_identity_is_a_coding_and_another_one_is_501_with_those_that_are_taken(
    checked: Checked,
) -> None:
    sent = json.dumps(body("FP32", [1.0])).encode()

    def asked(coding: str) -> httpx.Response:
        headers = {"content-encoding": coding}
        return checked.http.post("/v2/models/numbers/infer", content=sent, headers=headers)

    assert asked("identity").status_code == 200
    refused = asked("br")
    assert (refused.status_code, refused.headers["accept-encoding"]) == (501, "gzip, deflate")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_body_is_capped_after_decompression(checked: Checked, coding: str) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    answer = checked.http.post(
        "/v2/models/numbers/infer",
        content=pack(b" " * (9 * 2**20)),
        headers={"content-encoding": coding},
    )

    assert answer.status_code == 413


def test_a_grpc_message_is_capped_after_decompression(checked: Checked) -> None:
    request = service_pb2.ModelInferRequest(model_name="numbers")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 9 * 2**18])
    request.raw_input_contents.append(bytes(9 * 2**20))
    with grpc.insecure_channel(checked.server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request, timeout=30, compression=grpc.Compression.Gzip)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        request.inputs[0].shape[1] = 1000
        request.raw_input_contents[0] = bytes(4000)
        answer = stub.ModelInfer(request, timeout=30, compression=grpc.Compression.Gzip)
    assert len(answer.raw_output_contents[0]) == 4000
