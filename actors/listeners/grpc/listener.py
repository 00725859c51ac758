"""The door's own gRPC listener: bytes in, bytes out; messages are parsed here, in the door.

Handlers are registered without (de)serialisers, so that nothing is parsed twice and no generated
class has to cross a process (facts of Serve's proxy: it pickles parsed messages).
"""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc

from actors.access.rpcs import KeyedRpcs
from actors.experiments.desk import answer_headers, failure_headers, is_tracking_id
from actors.extensions.offered import Offered
from actors.extensions.request_regions import RequestRegions
from actors.front_door import FrontDoor
from actors.listeners.grpc.compression import AS_THEY_CAME, AnswerCompression, MessageExpansion
from actors.listeners.grpc.management import GrpcManagement
from actors.listeners.grpc.outcomes import Streaming, Unary, answered, ended, streamed
from actors.listeners.grpc.quick import QuickRpc
from actors.listeners.grpc.shared_memory import regions_of_peer
from actors.listeners.grpc.streams import GrpcStream, Many, Response, StreamError
from actors.listeners.http1.wire import ByteBudget
from actors.listeners.leaving.own_port import Listener, OwnPort
from actors.listeners.leaving.step_aside import step_aside
from actors.listeners.port_claim import PortClaim
from actors.listeners.restrict import Restrictions
from actors.logs.notes import noted_rpc, noted_stream
from cluster.errors import SquadronError
from cluster.protocols import v2_grpc
from cluster.protocols.extensions.shared_memory import InputRegions, Places
from cluster.protocols.grpc_schema import HEALTH_SERVICE, REFLECTION_SERVICES
from cluster.requests import InferenceRequest, InferenceResponse
from cluster.routing.table import version_of

MAX_PROBE_BYTES = 4096

_ASK_NOTHING = frozenset({"Check", "ServerLive", "ServerReady"})
"""Open to everybody; what is sent to them is not expanded as a body is."""

CALLS_PER_IN_FLIGHT = 2
"""Calls at once, of which some wait for nothing that is computed: streams without a request,
watched health."""

_CONTEXT_METADATA = frozenset({"x-request-id", "x-squadron-tenant", "traceparent", "tracestate"})


class GrpcListener:
    """All models on one port; no routing metadata is needed."""

    def __init__(self, door: FrontDoor, offered: Offered) -> None:
        self._door = door
        self._offered = offered
        self._server: grpc.aio.Server | None = None
        self._port = 0
        self._age_s = door.server.limits.grpc_connection_age_s
        self._ending: asyncio.Task[bool] | None = None
        self._listener: Listener | None = None
        self._management = GrpcManagement(door, offered)
        self._budget = ByteBudget(door.server.limits.max_buffered_bytes)
        self._logs = door.server.logging
        self._expansion = MessageExpansion(door.server.limits.max_body_bytes)
        closed = Restrictions(door.server.restricted)
        if door.callers is not None:
            closed = KeyedRpcs(door.callers, closed, self._expansion.message)
        self._closed = closed
        self._compression = AnswerCompression(door.server.grpc_compression)
        self._quick = QuickRpc(door)
        self._unary = {"ModelInfer": self._model_infer, **self._management.methods()}

    async def start(
        self, claim: PortClaim, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        limits = self._door.server.limits
        limit = limits.max_body_bytes
        self._server = grpc.aio.server(
            # Of these, those that infer are refused beyond `max_in_flight` in the protocol's way.
            maximum_concurrent_rpcs=CALLS_PER_IN_FLIGHT * limits.max_in_flight,
            options=[
                ("grpc.default_compression_level", self._compression.level),
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
                AS_THEY_CAME,
                # Clients may send keep-alive pings as often as tritonclient's example does.
                ("grpc.http2.min_ping_interval_without_data_ms", 5000),
                ("grpc.http2.max_ping_strikes", 0),
                # A caller who is told so in good time (HTTP/2's GOAWAY) opens another connection
                # and loses nothing; a server that stops tells him too late.
                ("grpc.max_connection_age_ms", int(self._age_s * 1000)),
            ],
        )
        self._server.add_generic_rpc_handlers(
            (self._inference(), self._health(), *self._reflection())
        )
        address = f"{claim.host}:{claim.port}"
        if credentials is None:
            self._server.add_insecure_port(address)
        else:
            self._server.add_secure_port(address, credentials)
        await self._server.start()
        self._port = claim.port
        self._ending = asyncio.create_task(self._server.wait_for_termination())
        self._listener = await asyncio.to_thread(OwnPort(claim.port).listener)

    @property
    def is_listening(self) -> bool:
        """Whether the server runs and, where that can be seen, its socket accepts."""
        is_serving = self._ending is not None and not self._ending.done()
        return is_serving and (self._listener is None or self._listener.is_open())

    async def drain(self, patience_s: float) -> None:
        """Let the callers go to another door where there is one, then stop; calls in flight have
        `patience_s` from the time at which the last caller was told."""
        if self._server is not None:
            server = self._door.server
            await step_aside(
                self._port,
                patience_s=server.limits.grpc_leave_s,
                is_elsewhere=server.nodes > 1,
            )
            await self._server.stop(patience_s)

    def _inference(self) -> grpc.GenericRpcHandler:
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            name: grpc.unary_unary_rpc_method_handler(
                ended(noted_rpc(name, self._answered(name, self._unary[name]), self._logs))
            )
            for name, method in v2_grpc.METHODS.items()
            if not method.server_streaming
        }
        answers = self._streamed("ModelStreamInfer", self._stream_infer)
        noted = noted_stream("ModelStreamInfer", answers, self._logs)
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(noted)
        return grpc.method_handlers_generic_handler(v2_grpc.SERVICE, handlers)

    def _health(self) -> grpc.GenericRpcHandler:
        # Of anybody's: their messages are a name.
        expansion = MessageExpansion(MAX_PROBE_BYTES)
        check = self._answered("Check", expansion.unary(self._management.health_check))
        watch = self._streamed("Watch", expansion.streaming(self._management.health_watch))
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(ended(check)),
            "Watch": grpc.unary_stream_rpc_method_handler(watch),
        }
        return grpc.method_handlers_generic_handler(HEALTH_SERVICE, handlers)

    def _reflection(self) -> list[grpc.GenericRpcHandler]:
        name = "ServerReflectionInfo"
        reflect = self._streamed(name, self._expansion.streaming(self._management.reflect))
        handlers = {name: grpc.stream_stream_rpc_method_handler(reflect)}
        return [
            grpc.method_handlers_generic_handler(service, handlers)
            for service in REFLECTION_SERVICES
        ]

    def _answered(self, name: str, work: Unary) -> Unary:
        if name not in _ASK_NOTHING:
            work = self._expansion.unary(work)
        return answered(self._closed.unary(name, work), self._compression)

    def _streamed(self, name: str, work: Streaming) -> Streaming:
        return streamed(self._closed.streaming(name, work), self._compression)

    async def _model_infer(self, data: bytes, context: Any) -> bytes:
        found = self._quick.decode(data)
        if found is None:
            return await self._unusual_infer(data, context)
        asked, rows = found
        self._add_metadata(asked, context)
        with self._budget.taken(len(data)):
            try:
                answer = await self._quick.infer(asked, rows)
                encoded = self._quick.encode(answer, asked)
                self._door.answer_sizes.check(len(encoded), answer.variant)
            except SquadronError:
                context.set_trailing_metadata(tuple(failure_headers(asked)))
                raise
        context.set_trailing_metadata(tuple(answer_headers(asked, answer.variant)))
        return encoded

    async def _unusual_infer(self, data: bytes, context: Any) -> bytes:
        with self._budget.taken(len(data)), self._regions(context) as regions:
            asked = self._asked(data, context, regions)
            with self._offered.shared_memory.held(asked.outputs) as places:
                try:
                    answer = await self._door.infer(asked)
                    encoded = self._encoded(answer, asked, places)
                    self._door.answer_sizes.check(len(encoded), answer.variant)
                except SquadronError:
                    context.set_trailing_metadata(tuple(failure_headers(asked)))
                    raise
        context.set_trailing_metadata(tuple(answer_headers(asked, answer.variant)))
        return encoded

    def _encoded(self, answer: InferenceResponse, asked: InferenceRequest, places: Places) -> bytes:
        has_classes = any(output.num_classes for output in asked.outputs)
        labels = self._door.class_labels(asked) if has_classes else {}
        return v2_grpc.encode_infer(answer, asked, class_labels=labels, places=places)

    async def _stream_infer(
        self, requests: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[bytes]:
        """Many requests under way at once (see `GrpcStream`); an error of one leaves the stream
        open, unless the caller asked for gRPC's own errors."""
        metadata = dict(context.invocation_metadata() or ())
        is_strict = _text(metadata.get("triton_grpc_error", "")).lower() == "true"
        stream = GrpcStream(
            requests,
            lambda data: self._stream_one(data, context),
            patience_s=self._door.server.limits.send_timeout_s,
        )
        async with aclosing(stream.responses()) as responses:
            async for response in responses:
                if isinstance(response, StreamError):
                    if is_strict:
                        context.set_trailing_metadata(tuple(response.told))
                        # Its traceback leads to the message, and it does to this frame.
                        raise response.error.with_traceback(None)
                    yield v2_grpc.encode_stream_error(
                        response.error, response.request_id, response.told
                    )
                else:
                    yield response

    async def _stream_one(self, data: bytes, context: Any) -> Response | Many:
        asked: InferenceRequest | None = None
        try:
            data = await self._expansion.message(data)
            with self._budget.taken(len(data)), self._regions(context) as regions:
                asked = self._asked(data, context, regions)
                if is_tracking_id(asked.request_id):
                    # The metadata are of all requests of the stream.
                    asked.tracking_id = asked.request_id
                if self._door.is_streamed(asked):
                    return self._many(asked, len(data) + regions.num_bytes)
                with self._offered.shared_memory.held(asked.outputs) as places:
                    answer = await self._door.infer(asked)
                    return self._message(answer, asked, places)
        except SquadronError as error:
            return _stream_error(error, asked)

    async def _many(self, asked: InferenceRequest, num_bytes: int) -> Many:
        """The responses of a decoupled model; at the end an empty one, for who asked for it."""
        wants_end = asked.parameters.pop(v2_grpc.EMPTY_FINAL, False) is True
        try:
            with (
                self._budget.taken(num_bytes),
                self._offered.shared_memory.held(asked.outputs) as places,
            ):
                async with aclosing(self._door.stream(asked)) as responses:
                    async for response in responses:
                        yield self._message(response, asked, places, is_final=False)
            if wants_end:
                version = version_of(self._door.route(asked.model, asked.version))
                yield v2_grpc.encode_stream_end(asked, version)
        except SquadronError as error:
            yield _stream_error(error, asked)

    def _message(
        self,
        answer: InferenceResponse,
        asked: InferenceRequest,
        places: Places,
        *,
        is_final: bool = True,
    ) -> bytes:
        """Raises: PayloadTooLarge, which ends this request and leaves the stream open."""
        if asked.assignment is not None:
            # No response of a stream has headers of its own.
            answer.parameters["squadron_request_id"] = asked.tracking_id
        encoded = v2_grpc.encode_stream_infer(answer, asked, places, is_final=is_final)
        self._door.answer_sizes.check(len(encoded), answer.variant)
        return encoded

    def _regions(self, context: Any) -> RequestRegions:
        of_caller = partial(regions_of_peer, self._offered.shared_memory, context)
        return RequestRegions(of_caller, self._door.route, self._budget)

    def _asked(self, data: bytes, context: Any, regions: InputRegions) -> InferenceRequest:
        asked = v2_grpc.decode_infer(data, regions)
        self._add_metadata(asked, context)
        return asked

    def _add_metadata(self, asked: InferenceRequest, context: Any) -> None:
        metadata = dict(context.invocation_metadata() or ())
        left_s = context.time_remaining()
        if left_s is not None:
            # The client's own deadline: work that outlives it is for nobody.
            asked.deadline_s = get_running_loop().time() + left_s
        if self._door.experiments.has_rules:
            found = {name: _text(value) for name, value in metadata.items()}
            asked.assignment = self._door.experiments.match(asked.model, found)
        sticky = self._door.sticky_header(asked.model) or "x-squadron-user"
        if sticky not in metadata and _CONTEXT_METADATA.isdisjoint(metadata):
            return
        tracking_id = _text(metadata.get("x-request-id", ""))
        asked.tracking_id = tracking_id if is_tracking_id(tracking_id) else ""
        asked.affinity_key = _text(metadata.get(sticky, ""))
        asked.tenant = _text(metadata.get("x-squadron-tenant", ""))
        asked.trace_parent = _text(metadata.get("traceparent", ""))
        asked.trace_state = _text(metadata.get("tracestate", ""))


def _stream_error(error: SquadronError, asked: InferenceRequest | None) -> StreamError:
    """`asked`: None for what could not be read."""
    if asked is None:
        return StreamError(error=error, request_id="")
    told = failure_headers(asked) if asked.assignment is not None else ()
    return StreamError(error=error, request_id=asked.request_id, told=told)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
