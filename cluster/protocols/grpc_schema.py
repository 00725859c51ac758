"""The messages of the gRPC protocol, in a descriptor pool of our own.

The protobuf package `inference` can exist once in a process's default pool, and public clients put
theirs there. A private pool lets both live side by side and needs no generated code.

The compiled set is made from the .proto files beside it (any protoc will do)::

    cd cluster/protocols/schema
    python -m pip install --target /tmp/grpcio-tools grpcio-tools
    PYTHONPATH=/tmp/grpcio-tools python -m grpc_tools.protoc -I. --include_imports \\
        --descriptor_set_out=open_inference.binpb open_inference.proto health.proto \\
        reflection_v1.proto reflection_v1alpha.proto

Messages have type Any: their classes are made at run time, no checker can see their fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"
REFLECTION_SERVICES = (
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
"""The same messages under the name that older clients call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One RPC: its message classes and which sides send more than one message."""

    request: Any
    response: Any
    client_streaming: bool
    server_streaming: bool


def _private_pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    compiled = files("cluster.protocols.schema").joinpath("open_inference.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled).file:
        pool.Add(file)
    return pool


POOL = _private_pool()


def message_class(name: str) -> Any:
    """The class of a message by its full name, e.g. `inference.ModelInferRequest`."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


def _methods(service: str) -> dict[str, Method]:
    return {
        method.name: Method(
            request=message_factory.GetMessageClass(method.input_type),
            response=message_factory.GetMessageClass(method.output_type),
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
        )
        for method in POOL.FindServiceByName(service).methods
    }


METHODS = _methods(SERVICE)
"""Name of the RPC -> its messages: the protocol's own and Triton's extensions."""

HEALTH_METHODS = _methods(HEALTH_SERVICE)
