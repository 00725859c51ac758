"""A door's requests that have any number of responses."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from actors.delivery.calls import call_of
from actors.delivery.dispatchers import Arrivals, Place, place_of, places_of
from actors.ensembles.run import renamed
from actors.streams.kept import KeptStream
from actors.streams.transport import StreamTransport
from cluster.errors import DeadlineExceeded, NoReadyReplica, ShardLost, SquadronError, Unsupported
from cluster.protocols.envelope import Call, Reply
from cluster.protocols.v2_check import check_request
from cluster.requests import InferenceRequest, InferenceResponse
from cluster.routing.table import EnsembleRoute, Route, RoutingTable, VariantRoute, version_of
from cluster.tensors import Tensor

if TYPE_CHECKING:
    from actors.experiments.mirror import Mirror
    from actors.front_door import FrontDoor

MAX_ATTEMPTS = 4
"""Replicas that a request may meet dying before its first response."""

ONE_ANSWER = (
    "model '{}' is decoupled: inference with one answer doesn't support models with decoupled "
    "transaction policy; ask generate_stream (HTTP) or ModelStreamInfer (gRPC)"
)

MakeStreams = Callable[[VariantRoute], StreamTransport]


class StreamAnswers:
    """Bound to one front door."""

    def __init__(self, door: FrontDoor, make_streams: MakeStreams | None, mirror: Mirror) -> None:
        self._door = door
        self._mirror = mirror
        self._make_streams = make_streams
        self._transports: dict[Place, StreamTransport] = {}
        self._submitted: Counter[str] = Counter()
        self._under_way: Counter[Place] = Counter()
        self._named = places_of(door.table)

    def adopt(self, table: RoutingTable) -> None:
        """A stream that is under way keeps its transport."""
        self._named = places_of(table)
        for gone in self._transports.keys() - self._named:
            del self._transports[gone]

    def is_at_rest(self) -> bool:
        """See `Way.is_at_rest`."""
        return self._under_way.keys() <= self._named

    def arrivals(self) -> dict[str, Arrivals]:
        """See `Dispatchers.arrivals`; streams wait at their replica, so here none does."""
        under_way: Counter[str] = Counter()
        for (name, _), count in self._under_way.items():
            under_way[name] += count
        return {
            name: Arrivals(total, 0, under_way[name]) for name, total in self._submitted.items()
        }

    async def responses(self, request: InferenceRequest) -> AsyncGenerator[InferenceResponse, None]:
        """See `FrontDoor.stream`."""
        route = self._door.answering(request)
        if not route.is_streamed:
            yield await self._door.infer(request)
            return
        self._door.enter(request)
        self._door.experiments.began(request)
        kept = self._kept(route, request)
        began_s = time.perf_counter()
        outcome, answered_by = "cancelled", ""
        try:
            async with aclosing(self._answers(route, request)) as answers:
                async for answer in answers:
                    answered_by = answer.variant
                    if kept is not None:
                        kept.add(answer.outputs)
                    yield answer
            outcome = "success"
        except SquadronError as error:
            outcome = error.code
            raise
        finally:
            variant = answered_by if outcome == "success" else ""
            self._door.leave(request, variant, outcome, time.perf_counter() - began_s)
        if kept is not None and kept.is_whole:
            self._mirror.offer(request, kept.answer())

    async def whole(
        self, route: VariantRoute, request: InferenceRequest, deadline_s: float
    ) -> tuple[Tensor, ...]:
        """See `FrontDoor.ask_stream`."""
        kept = KeptStream(is_language=route.facts.is_language)
        async with aclosing(self._replies(route, request, deadline_s)) as replies:
            async for reply in replies:
                if reply.error is not None:
                    raise reply.error
                kept.add(reply.outputs)
        return kept.answer()

    def _kept(self, route: Route, request: InferenceRequest) -> KeptStream | None:
        """Where to keep what the caller gets, if a copy is to be compared with it."""
        if not isinstance(route, VariantRoute) or self._mirror.config_of(request) is None:
            return None
        return KeptStream(is_language=route.facts.is_language)

    async def _answers(
        self, route: Route, request: InferenceRequest
    ) -> AsyncGenerator[InferenceResponse, None]:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._door.timeout_s(request)
        version = version_of(self._door.route(request.model, request.version))
        asked, names, answered_by = request, None, route.name
        if isinstance(route, EnsembleRoute):
            run = self._door.ensemble_run(route, request, deadline_s)
            asked, names = await run.stream_request(), run.stream_names
            route = self._door.route(asked.model)
        assert isinstance(route, VariantRoute)  # nothing else streams
        async with aclosing(self._replies(route, asked, deadline_s)) as replies:
            async for reply in replies:
                if reply.error is not None:
                    raise reply.error
                outputs = reply.outputs
                if names is not None:
                    values = renamed(outputs, names)
                    wanted = [output.name for output in request.outputs] or list(values)
                    outputs = tuple(values[name] for name in wanted if name in values)
                yield InferenceResponse(
                    model=request.model,
                    version=version,
                    request_id=request.request_id,
                    variant=answered_by,
                    outputs=outputs,
                    parameters={"squadron_variant": answered_by},
                )

    async def _replies(
        self, route: VariantRoute, request: InferenceRequest, deadline_s: float
    ) -> AsyncGenerator[Reply, None]:
        if route.state == "UNAVAILABLE":
            raise NoReadyReplica(
                f"model '{route.name}' is not at ready state: {route.reason}", retry_after_s=1
            )
        rows = check_request(
            request,
            route.signature,
            max_batch_size=route.batching.max_batch_size,
            is_batched=route.facts.is_batched,
        )
        call = call_of(request, rows)
        call.call_id = 1
        call.parameters = request.parameters
        place = place_of(route)
        self._submitted[route.name] += 1
        self._under_way[place] += 1
        try:
            async with aclosing(self._attempts(route, call, deadline_s)) as replies:
                async for reply in replies:
                    yield reply
        finally:
            self._under_way[place] -= 1
            if not self._under_way[place]:
                del self._under_way[place]

    async def _attempts(
        self, route: VariantRoute, call: Call, deadline_s: float
    ) -> AsyncGenerator[Reply, None]:
        loop = asyncio.get_running_loop()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            call.left_s = deadline_s - loop.time()
            has_begun = False
            try:
                async with aclosing(self._transport(route).stream(call)) as replies:
                    while True:
                        reply = await _next(replies, deadline_s)
                        if reply is None:
                            return
                        has_begun = True
                        yield reply
            except ShardLost:
                # What the caller has seen cannot be taken back; before that, another may do it.
                if has_begun or attempt == MAX_ATTEMPTS:
                    raise

    def _transport(self, route: VariantRoute) -> StreamTransport:
        if self._make_streams is None:
            raise Unsupported(f"model '{route.name}' is decoupled, and this door has no streams")
        found = self._transports.get(place_of(route))
        if found is None:
            found = self._transports[place_of(route)] = self._make_streams(route)
        return found


async def _next(replies: AsyncGenerator[Reply, None], deadline_s: float) -> Reply | None:
    """None at the end. Raises: DeadlineExceeded."""
    try:
        async with asyncio.timeout_at(deadline_s):
            return await anext(replies, None)
    except TimeoutError:
        raise DeadlineExceeded(
            "Request timeout expired: the deadline passed before the stream was complete"
        ) from None
