from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from tritonclient.grpc import model_config_pb2, service_pb2

from cluster.protocols.grpc_schema import HEALTH_METHODS, METHODS, POOL

PUBLIC_FILES = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)


def described(message: Any) -> dict[str, Any]:
    """Everything about a message that decides its bytes, nested messages included."""
    return {
        "fields": {field.name: of_field(field) for field in message.fields},
        "oneofs": {one.name: sorted(f.name for f in one.fields) for one in message.oneofs},
        "nested": {nested.name: described(nested) for nested in message.nested_types},
        "enums": {enum.name: of_enum(enum) for enum in message.enum_types},
    }


def of_field(field: FieldDescriptor) -> tuple[Any, ...]:
    kind = field.message_type or field.enum_type
    packed = field.is_repeated and field.is_packed
    return (field.number, field.type, field.is_repeated, packed, kind.full_name if kind else None)


def of_enum(enum: EnumDescriptor) -> dict[str, int]:
    return {value.name: value.number for value in enum.values}


def public_messages() -> dict[str, Any]:
    return {
        message.full_name: message
        for file in PUBLIC_FILES
        for message in file.message_types_by_name.values()
    }


@pytest.mark.parametrize("name", sorted(public_messages()))
def test_a_message_has_the_public_protocols_fields_numbers_and_types(name: str) -> None:
    assert described(POOL.FindMessageTypeByName(name)) == described(public_messages()[name])


def test_we_define_no_message_and_no_enum_of_our_own() -> None:
    ours = [POOL.FindFileByName(name) for name in ("open_inference.proto", "model_config.proto")]

    assert {m.full_name for f in ours for m in f.message_types_by_name.values()} == set(
        public_messages()
    )
    for file in ours:
        for name, enum in file.enum_types_by_name.items():
            assert of_enum(enum) == of_enum(model_config_pb2.DESCRIPTOR.enum_types_by_name[name])


def test_the_service_has_the_public_protocols_twenty_methods() -> None:
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    public = {
        method.name: (
            method.input_type.full_name,
            method.output_type.full_name,
            method.client_streaming,
            method.server_streaming,
        )
        for method in service.methods
    }

    assert len(METHODS) == 20
    assert public == {
        name: (
            method.request.DESCRIPTOR.full_name,
            method.response.DESCRIPTOR.full_name,
            method.client_streaming,
            method.server_streaming,
        )
        for name, method in METHODS.items()
    }


def test_health_has_the_standard_statuses() -> None:
    status = HEALTH_METHODS["Check"].response.DESCRIPTOR.enum_types_by_name["ServingStatus"]

    assert of_enum(status) == {"UNKNOWN": 0, "SERVING": 1, "NOT_SERVING": 2, "SERVICE_UNKNOWN": 3}


@pytest.mark.parametrize(
    "order",
    [
        "import tritonclient.grpc; import cluster.protocols.grpc_schema",
        "import cluster.protocols.grpc_schema; import tritonclient.grpc",
    ],
)
def test_our_messages_and_a_public_clients_live_in_one_process(root: Path, order: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", order], cwd=root, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_the_server_does_not_need_the_public_client(root: Path) -> None:
    code = (
        "import sys; import cluster.protocols.v2_grpc, cluster.protocols.v2_json;"
        "sys.exit(any(name.startswith('tritonclient') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)

    assert done.returncode == 0
