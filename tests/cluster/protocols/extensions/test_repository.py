from __future__ import annotations

import base64
from typing import Any

import pytest

from cluster.errors import InvalidRequest, Unsupported
from cluster.protocols.extensions import grpc_messages
from cluster.protocols.extensions.repository import decode_load, decode_unload
from cluster.protocols.grpc_schema import METHODS


def test_http_files_are_base64_and_the_configuration_is_a_string() -> None:
    content = {
        "parameters": {"config": "{}", "file:1/m.onnx": base64.b64encode(b"\x00\xff").decode()}
    }

    assert decode_load(content) == ("{}", {"file:1/m.onnx": b"\x00\xff"})
    assert decode_load({}) == ("", {})


@pytest.mark.parametrize(
    "content",
    [
        {"parameters": []},
        {"parameters": {"config": {}}},
        {"parameters": {"file:1/m.onnx": "not base64!"}},
        {"parameters": {"file:1/m.onnx": 1}},
        {"parameters": {"other": "x"}},
    ],
)
def test_http_parameters_of_another_kind_are_refused(content: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="parameter"):
        decode_load(content)


def test_unload_dependents_is_a_truth() -> None:
    assert decode_unload({"parameters": {"unload_dependents": True}}) is True
    assert decode_unload({}) is False
    with pytest.raises(InvalidRequest, match="true or false"):
        decode_unload({"parameters": {"unload_dependents": "yes"}})


def test_grpc_files_are_bytes() -> None:
    message = METHODS["RepositoryModelLoad"].request(model_name="m")
    message.parameters["config"].string_param = "{}"
    message.parameters["file:1/m.onnx"].bytes_param = b"\x00"

    found = grpc_messages.decode_load(message.SerializeToString())

    assert found == ("m", "{}", {"file:1/m.onnx": b"\x00"})
    message.parameters["file:1/n.onnx"].string_param = "x"
    with pytest.raises(InvalidRequest, match="string_param"):
        grpc_messages.decode_load(message.SerializeToString())


def test_a_repository_name_is_not_supported() -> None:
    message = METHODS["RepositoryModelUnload"].request(model_name="m", repository_name="r")

    with pytest.raises(Unsupported, match="'repository_name' specification is not supported"):
        grpc_messages.decode_unload(message.SerializeToString())
