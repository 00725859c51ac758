"""Open Inference Protocol V2 with public clients and by hand: health, metadata, errors, metrics."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.models]

MODELS = {"photo-classifier", "photo-ensemble", "text-embedder", "sentiment"}


def post(prod: Running, model: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = {"content-type": "application/json"}
    return httpx.post(
        f"{prod.http}/v2/models/{model}/infer", content=content, headers=kind | headers, timeout=30
    )


def text_input(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["hello"]} | changes
    return {"inputs": [tensor]}


@pytest.mark.parametrize("module", [http_client, grpc_client], ids=["http", "grpc"])
def test_health_and_metadata_by_the_public_clients(prod: Running, module: Any) -> None:
    address = prod.http_address if module is http_client else prod.grpc
    as_json = {} if module is http_client else {"as_json": True}
    with module.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert all(client.is_model_ready(model) for model in MODELS)
        server = client.get_server_metadata(**as_json)
        model = client.get_model_metadata("photo-classifier", **as_json)
        config = client.get_model_config("text-embedder", **as_json)

    assert server["name"] == "squadron"
    assert "binary_tensor_data" in server["extensions"]
    assert [(t["name"], t["datatype"]) for t in model["inputs"]] == [("image", "BYTES")]
    assert [(t["name"], [int(d) for d in t["shape"]]) for t in model["outputs"]] == [
        ("labels", [-1, 5]),
        ("scores", [-1, 5]),
    ]
    config = config.get("config", config)
    assert int(config["max_batch_size"]) == 32
    assert config["output"][0]["data_type"] == "TYPE_FP32"


def test_a_binary_answer_is_asked_for_as_triton_does(prod: Running) -> None:
    text = http_client.InferInput("text", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"hello"], dtype=object), binary_data=False)
    vector = http_client.InferRequestedOutput("embedding", binary_data=True)
    with http_client.InferenceServerClient(prod.http_address) as client:
        result = client.infer("text-embedder", [text], outputs=[vector], request_id="mine")

    assert result.as_numpy("embedding").shape == (1, 384)
    assert result.get_response()["id"] == "mine"
    assert result.get_response()["parameters"]["squadron_variant"] == "text-embedder"


def test_probabilities_come_when_they_are_asked_for_by_name(prod: Running) -> None:
    from tests.e2e.png import plain_png

    image = grpc_client.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([plain_png()], dtype=object))
    wanted = grpc_client.InferRequestedOutput("probabilities")
    with grpc_client.InferenceServerClient(prod.grpc) as client:
        found = client.infer("photo-classifier-fp32", [image], outputs=[wanted])

    probabilities = found.as_numpy("probabilities")
    assert probabilities.shape == (1, 1000)
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)


def test_the_gRPC_stream_answers_every_request_and_survives_a_bad_one(prod: Running) -> None:
    answers: list[tuple[Any, Any]] = []
    with grpc_client.InferenceServerClient(prod.grpc) as client:
        client.start_stream(lambda result, error: answers.append((result, error)))
        for model in ("text-embedder", "no-such-model", "text-embedder"):
            text = grpc_client.InferInput("text", [1], "BYTES")
            text.set_data_from_numpy(np.array([b"hello"], dtype=object))
            client.async_stream_infer(model, [text])
        client.stop_stream()

    assert [error is None for _, error in answers] == [True, False, True]
    assert "unknown model" in str(answers[1][1])


BAD_TEXT = {
    "wrong name": (text_input(name="txt"), "txt"),
    "wrong datatype": (text_input(datatype="FP32", data=[1.0]), "BYTES"),
    "wrong shape": (text_input(shape=[1, 1]), "shape"),
    "shape and data differ": (text_input(shape=[2]), "text"),
    "empty batch": (text_input(shape=[0], data=[]), "text"),
    "batch over the maximum": (text_input(shape=[33], data=["x"] * 33), "32"),
    "no inputs": ({"inputs": []}, "input"),
    "number as text": (text_input(data=[3]), "text"),
    "not an object": ([1], "object"),
    "truncated": (b'{"inputs": [{"name": "te', ""),
    "not utf-8": (b'\xff{"inputs": []}', ""),
    "negative shape": (text_input(shape=[-1]), "shape"),
    "unknown output": (text_input() | {"outputs": [{"name": "vector"}]}, "vector"),
}


@pytest.mark.parametrize("name", BAD_TEXT)
def test_a_bad_request_is_a_400_that_says_what_is_wrong(prod: Running, name: str) -> None:
    body, said = BAD_TEXT[name]

    answer = post(prod, "text-embedder", body)

    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]
    assert "Traceback" not in answer.text
    assert post(prod, "text-embedder", text_input()).status_code == 200


def test_a_binary_body_that_is_shorter_than_it_says_is_a_400(prod: Running) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1]}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": 100}}]}).encode()

    answer = post(
        prod,
        "text-embedder",
        head + b"\x05\0\0\0hello",
        **{"inference-header-content-length": str(len(head))},
    )

    assert answer.status_code == 400
    assert "text" in answer.json()["error"]


@pytest.mark.parametrize("body", [b"GIF89a is no image", b"\xff\xd8\xff\xe0 cut", b"\x89PNG\r\n"])
def test_what_is_no_image_is_told_so_and_harms_no_neighbour(prod: Running, body: bytes) -> None:
    from tests.e2e.png import plain_png

    image = http_client.InferInput("image", [2], "BYTES")
    image.set_data_from_numpy(np.array([plain_png(), body], dtype=object))
    with (
        http_client.InferenceServerClient(prod.http_address) as client,
        pytest.raises(InferenceServerException, match="image") as caught,
    ):
        client.infer("photo-classifier-fp32", [image])

    assert caught.value.status() == "400"
    assert "1" in caught.value.message()
    raw = {"content-type": "image/png"}
    url = f"{prod.http}/v2/models/photo-classifier-fp32/infer"
    assert httpx.post(url, content=plain_png(), headers=raw).status_code == 200


@pytest.mark.parametrize("module", [http_client, grpc_client], ids=["http", "grpc"])
def test_unknown_models_and_versions_are_not_found(prod: Running, module: Any) -> None:
    address = prod.http_address if module is http_client else prod.grpc
    text = module.InferInput("text", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"x"], dtype=object))
    with module.InferenceServerClient(address) as client:
        for model, version in (("nothing", ""), ("text-embedder", "7")):
            with pytest.raises(InferenceServerException, match="Request for unknown model") as e:
                client.infer(model, [text], model_version=version)
            assert e.value.status() in ("404", "StatusCode.NOT_FOUND")


def test_wrong_paths_and_methods_have_the_protocols_shape(prod: Running) -> None:
    missing = httpx.get(f"{prod.http}/v2/nowhere")
    wrong = httpx.get(f"{prod.http}/v2/models/text-embedder/infer")

    assert (missing.status_code, missing.json()) == (404, {"error": "Not Found"})
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


def test_a_deadline_that_cannot_be_met_is_a_504(prod: Running) -> None:
    answer = post(prod, "text-embedder", text_input() | {"parameters": {"timeout": 1}})

    assert answer.status_code == 504
    assert "timeout" in answer.json()["error"]


def test_a_body_that_is_no_http_is_refused_and_the_door_goes_on(prod: Running) -> None:
    host, port = prod.http_address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        answer = connection.recv(4096)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"{prod.http}/v2/health/ready").status_code == 200


def test_a_body_over_the_limit_is_refused_before_it_is_read(prod: Running) -> None:
    host, port = prod.http_address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(
            b"POST /v2/models/text-embedder/infer HTTP/1.1\r\nhost: x\r\n"
            b"content-length: 99999999999\r\n\r\n"
        )
        answer = connection.recv(4096)

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_requests_sent_in_one_go_are_answered_in_order(prod: Running) -> None:
    host, port = prod.http_address.split(":")
    one = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    two = b"GET /v2/models/text-embedder/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(one + two)
        answer = b""
        while part := connection.recv(4096):
            answer += part

    assert answer.index(b'{"live":true}') < answer.index(b'"ready":true')


def test_metrics_are_the_whole_nodes_on_both_ports(prod: Running) -> None:
    assert post(prod, "text-embedder", text_input()).status_code == 200

    for url in (prod.metrics, f"{prod.http}/metrics"):
        text = httpx.get(url).text
        rows = [line for line in text.splitlines() if line.startswith("nv_inference_count{")]
        assert any('model="text-embedder"' in row for row in rows)
        assert "nv_inference_exec_count{" in text
        assert "squadron_requests_total{" in text


def test_serves_own_ingress_is_a_second_door_over_the_same_routes(prod: Running) -> None:
    body = json.dumps(text_input()).encode()

    answer = httpx.post(
        f"{prod.second_door}/v2/models/text-embedder/infer",
        content=body,
        headers={"content-type": "application/json"},
        timeout=30,
    )

    assert answer.status_code == 200
    assert len(answer.json()["outputs"][0]["data"]) == 384


def test_the_doors_listen_on_loopback_only(prod: Running) -> None:
    import psutil

    ours = {int(url.rsplit(":", 1)[1].split("/")[0]) for url in (prod.http, prod.grpc)}
    ours.add(int(prod.metrics.split(":")[2].split("/")[0]))
    listening = {
        (c.laddr.ip.removeprefix("::ffff:"), c.laddr.port)
        for c in psutil.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN and c.laddr.port in ours
    }

    assert listening == {("127.0.0.1", port) for port in ours}
