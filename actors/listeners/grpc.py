"""The door's own gRPC listener: bytes in, bytes out; messages are parsed here, in the door.

Handlers are registered without (de)serialisers, so that nothing is parsed twice and no generated
class has to cross a process (facts of Serve's proxy: it pickles parsed messages).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc

from actors.descriptions import EXTENSIONS, describe_model, repository_index
from actors.extensions.offered import Offered
from actors.front_door import FrontDoor
from actors.listeners.port_claim import PortClaim
from cluster.errors import SquadronError, Unsupported
from cluster.protocols import v2_grpc
from cluster.protocols.extensions.statistics import statistics_json
from cluster.requests import InferenceRequest

logger = logging.getLogger("squadron.grpc")

MAX_DETAILS = 4000
"""Characters of an error's text: status details travel in a header of limited size."""

Unary = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


class GrpcListener:
    """All models on one port; no routing metadata is needed."""

    def __init__(self, door: FrontDoor, offered: Offered) -> None:
        self._door = door
        self._offered = offered
        self._server: grpc.aio.Server | None = None
        self._implemented: dict[str, Unary] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "RepositoryIndex": self._repository_index,
            "ModelInfer": self._model_infer,
            "ModelStatistics": self._model_statistics,
        }

    async def start(self, claim: PortClaim) -> None:
        limit = self._door.server.limits.max_body_bytes
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
                # Clients may send keep-alive pings as often as tritonclient's example does.
                ("grpc.http2.min_ping_interval_without_data_ms", 5000),
                ("grpc.http2.max_ping_strikes", 0),
            ]
        )
        self._server.add_generic_rpc_handlers((self._inference(), self._health()))
        self._server.add_insecure_port(f"{claim.host}:{claim.port}")
        await self._server.start()

    async def drain(self, patience_s: float) -> None:
        """Refuse new calls, let those in flight finish."""
        if self._server is not None:
            await self._server.stop(patience_s)

    def _inference(self) -> grpc.GenericRpcHandler:
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
        for name, method in v2_grpc.METHODS.items():
            if method.client_streaming:
                handlers[name] = grpc.stream_stream_rpc_method_handler(self._stream_infer)
            else:
                work = self._implemented.get(name, _unsupported(name))
                handlers[name] = grpc.unary_unary_rpc_method_handler(self._answered(work))
        return grpc.method_handlers_generic_handler(v2_grpc.SERVICE, handlers)

    def _health(self) -> grpc.GenericRpcHandler:
        check = grpc.unary_unary_rpc_method_handler(self._answered(self._health_check))
        return grpc.method_handlers_generic_handler(v2_grpc.HEALTH_SERVICE, {"Check": check})

    def _answered(self, work: Unary) -> Unary:
        """Errors become the protocol's status; a bug is INTERNAL without details."""

        async def run(data: bytes, context: Any) -> bytes:
            try:
                return await work(data, context)
            except SquadronError as error:
                await context.abort(_code(error), error.message[:MAX_DETAILS])
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if isinstance(error, grpc.aio.AbortError):
                    raise
                logger.exception("a gRPC request failed with a bug of ours")
                await context.abort(grpc.StatusCode.INTERNAL, "internal error")
            raise AssertionError("abort always raises")

        return run

    async def _model_infer(self, data: bytes, context: Any) -> bytes:
        asked = self._with_metadata(v2_grpc.decode_infer(data), context)
        answer = await self._door.infer(asked)
        context.set_trailing_metadata((("x-squadron-variant", answer.variant),))
        has_classes = any(output.num_classes for output in asked.outputs)
        labels = self._door.class_labels(asked.model) if has_classes else {}
        return v2_grpc.encode_infer(answer, asked, class_labels=labels)

    async def _stream_infer(
        self, requests: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[bytes]:
        """One answer a request, in order; an error of one request leaves the stream open."""
        async for data in requests:
            request_id = ""
            try:
                asked = self._with_metadata(v2_grpc.decode_infer(data), context)
                request_id = asked.request_id
                answer = await self._door.infer(asked)
                yield v2_grpc.encode_stream_infer(answer, asked)
            except SquadronError as error:
                yield v2_grpc.encode_stream_error(error, request_id)

    def _with_metadata(self, asked: InferenceRequest, context: Any) -> InferenceRequest:
        metadata = dict(context.invocation_metadata() or ())
        sticky = self._door.sticky_header(asked.model) or "x-squadron-user"
        left_s = context.time_remaining()
        parameters = dict(asked.parameters)
        if left_s is not None and "timeout" not in parameters:
            # The client's own deadline: work that outlives it is for nobody.
            parameters["timeout"] = max(1, int(left_s * 1e6))
        return replace(
            asked,
            parameters=parameters,
            affinity_key=_text(metadata.get(sticky, "")),
            tenant=_text(metadata.get("x-squadron-tenant", "")),
            trace_parent=_text(metadata.get("traceparent", "")),
        )

    async def _server_live(self, data: bytes, context: Any) -> bytes:
        return v2_grpc.encode_server_live(True)

    async def _server_ready(self, data: bytes, context: Any) -> bytes:
        return v2_grpc.encode_server_ready(not self._door.not_ready())

    async def _model_ready(self, data: bytes, context: Any) -> bytes:
        name, version = v2_grpc.decode_model_name("ModelReady", data)
        self._door.route(name, version)
        state, _ = self._door.table.state_of(name)
        return v2_grpc.encode_model_ready(state == "READY")

    async def _server_metadata(self, data: bytes, context: Any) -> bytes:
        from actors.descriptions import describe_server

        described = describe_server(self._door)
        return v2_grpc.encode_server_metadata(
            str(described["name"]), str(described["version"]), EXTENSIONS
        )

    async def _model_metadata(self, data: bytes, context: Any) -> bytes:
        name, version = v2_grpc.decode_model_name("ModelMetadata", data)
        return v2_grpc.encode_model_metadata(describe_model(self._door, name, version))

    async def _model_config(self, data: bytes, context: Any) -> bytes:
        name, version = v2_grpc.decode_model_name("ModelConfig", data)
        return v2_grpc.encode_model_config(describe_model(self._door, name, version))

    async def _repository_index(self, data: bytes, context: Any) -> bytes:
        only_ready = v2_grpc.decode_repository_index(data)
        return v2_grpc.encode_repository_index(repository_index(self._door, only_ready=only_ready))

    async def _model_statistics(self, data: bytes, context: Any) -> bytes:
        name, version = v2_grpc.decode_model_name("ModelStatistics", data)
        found = await self._offered.statistics.of(name, version)
        return v2_grpc.encode_json("ModelStatistics", statistics_json(found))

    async def _health_check(self, data: bytes, context: Any) -> bytes:
        return v2_grpc.encode_health(not self._door.not_ready())


def _unsupported(name: str) -> Unary:
    async def refuse(data: bytes, context: Any) -> bytes:
        raise Unsupported(f"{name} is not supported by this server")

    return refuse


def _code(error: SquadronError) -> grpc.StatusCode:
    code: grpc.StatusCode = grpc.StatusCode[error.grpc_status]
    return code


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
