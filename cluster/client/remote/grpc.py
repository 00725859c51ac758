"""A model of a server, by Open Inference Protocol V2 over gRPC."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import json_format

from cluster.client.backend import Backend
from cluster.client.remote.coding import signature_of
from cluster.client.remote.settings import ServerSettings
from cluster.errors import (
    ERRORS_BY_NAME,
    DeadlineExceeded,
    EngineFailed,
    InvalidRequest,
    NoReadyReplica,
    RateLimited,
    SquadronError,
)
from cluster.protocols.grpc_schema import METHODS, SERVICE
from cluster.protocols.v2_binary import array_from_bytes, bytes_from_tensor
from cluster.tensors import Array, Signature, tensor

SCHEMES = ("grpc://", "grpcs://")
_RETRIED = {"UNAVAILABLE": 503, "RESOURCE_EXHAUSTED": 429}
_COMPRESSION = {
    None: grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}


def _kinds() -> dict[str, type[SquadronError]]:
    """The most general error of each status, as the server maps them."""
    found: dict[str, type[SquadronError]] = {}
    for kind in ERRORS_BY_NAME.values():
        found.setdefault(kind.grpc_status, kind)
    return found | {
        "INVALID_ARGUMENT": InvalidRequest,
        "UNAVAILABLE": NoReadyReplica,
        "RESOURCE_EXHAUSTED": RateLimited,
        "INTERNAL": EngineFailed,
        "DEADLINE_EXCEEDED": DeadlineExceeded,
    }


_KINDS = _kinds()


class GrpcServer:
    """See `Server`. One channel, which keeps and mends its connections itself."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_http_proxy", 0),
        ]
        scheme, _, target = settings.url.partition("://")
        compression = _COMPRESSION[settings.compression]
        if scheme == "grpcs":
            roots = None
            if isinstance(settings.verify, str):
                with open(settings.verify, "rb") as file:
                    roots = file.read()
            self._channel = grpc.secure_channel(
                target, grpc.ssl_channel_credentials(roots), options, compression
            )
        else:
            self._channel = grpc.insecure_channel(target, options, compression)
        self._calls = {
            name: self._channel.unary_unary(
                f"/{SERVICE}/{name}",
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
            for name, method in METHODS.items()
            if not (method.client_streaming or method.server_streaming)
        }
        self._metadata = [(name.lower(), value) for name, value in settings.headers.items()]
        if settings.compression is not None:
            # The server cannot see what gRPC itself tells it about compression.
            self._metadata.append(("accept-encoding", settings.compression))
        if settings.api_key:
            self._metadata.append(("authorization", f"Bearer {settings.api_key}"))

    def open(self, model: str) -> Backend:
        return GrpcBackend(self, model)

    def is_ready(self) -> bool:
        try:
            return bool(self.call("ServerReady").ready)
        except SquadronError:
            return False

    def model_names(self) -> list[str]:
        return sorted({entry.name for entry in self.call("RepositoryIndex").models})

    def load(self, model: str, config: str) -> None:
        self.call(
            "RepositoryModelLoad",
            model_name=model,
            parameters={"config": {"string_param": config}},
        )

    def call(self, method: str, **fields: Any) -> Any:
        """The answer's message."""
        request = METHODS[method].request(**fields)
        attempt = 0
        while True:
            try:
                return self._calls[method](
                    request, timeout=self.settings.timeout_s, metadata=self._metadata
                )
            except grpc.RpcError as error:
                status = error.code().name
                wait_s = None
                if status in _RETRIED:
                    wait_s = self.settings.retry.wait_s(
                        attempt, status=_RETRIED[status], told_s=None, draw=random.random()
                    )
                if wait_s is None:
                    kind = _KINDS.get(status, EngineFailed)
                    raise kind(f"{error.details()}", url=self.settings.url) from None
            except ValueError as error:
                # grpc's own word for a channel that was closed.
                raise EngineFailed(str(error)) from None
            time.sleep(wait_s)
            attempt += 1

    def close(self) -> None:
        self._channel.close()


class GrpcBackend:
    """See `Backend`."""

    is_remote = True

    def __init__(self, server: GrpcServer, model: str) -> None:
        name, _, version = model.partition("/")
        self.server = server
        self._named = {"name": name, "version": version}
        metadata = server.call("ModelMetadata", **self._named)
        found = server.call("ModelConfig", **self._named).config
        self.config: dict[str, Any] = json_format.MessageToDict(
            found, preserving_proto_field_name=True
        )
        told = self.config.get("parameters", {}).get("outputs_on_request", {})
        entries = {
            side: [
                {"name": each.name, "datatype": each.datatype, "shape": each.shape}
                for each in getattr(metadata, side)
            ]
            for side in ("inputs", "outputs")
        }
        self._signature = signature_of(entries, str(told.get("string_value", "")))
        self._is_closed = False

    @property
    def name(self) -> str:
        return self._named["name"]

    @property
    def is_batched(self) -> bool:
        return int(self.config.get("max_batch_size", 0)) >= 1

    @property
    def signature(self) -> Signature:
        return self._signature

    def infer(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        if self._is_closed:
            raise EngineFailed(f"model {self.name!r} was unloaded")
        entries, raw = [], []
        for name, array in inputs.items():
            try:
                given = tensor(name, array)
            except TypeError as error:
                raise InvalidRequest(f"input {name!r}: {error}") from None
            entries.append({"name": name, "datatype": given.datatype, "shape": array.shape})
            raw.append(bytes(bytes_from_tensor(given)))
        answer = self.server.call(
            "ModelInfer",
            model_name=self.name,
            model_version=self._named["version"],
            inputs=entries,
            outputs=[{"name": name} for name in outputs],
            raw_input_contents=raw,
        )
        found: dict[str, Array] = {}
        for entry, data in zip(answer.outputs, answer.raw_output_contents, strict=True):
            # Copied: protobuf's bytes cannot be written to, and the array is the caller's.
            view, shape = memoryview(bytearray(data)), tuple(entry.shape)
            found[entry.name] = array_from_bytes(view, entry.datatype, shape, entry.name)
        return found

    def close(self) -> None:
        """The server goes on serving the model; only this handle ends."""
        self._is_closed = True
