"""Spans of a door: one a request, one for its waiting there, one a member of an ensemble."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence

from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanKind,
    Status,
    StatusCode,
    set_span_in_context,
)

from actors.delivery.transport import Transport
from actors.delivery.withdrawals import Withdrawals
from actors.tracing.context import below, callers_place, text_of
from actors.tracing.follows import Found
from actors.tracing.spans import ProcessTracer
from cluster.config.observability.tracing import TracingConfig
from cluster.errors import SquadronError
from cluster.protocols.envelope import Call, Reply
from cluster.requests import InferenceRequest

MAX_TEXT = 256
"""Characters of what callers choose."""


class _Open:
    """A request's span while it lasts. `began_ns`: since when the request waits at the door."""

    __slots__ = ("_owner", "began_ns", "is_sent", "span", "text")

    def __init__(self, owner: DoorSpans, span: Span, began_ns: int) -> None:
        self._owner = owner
        self.span = span
        self.text = text_of(span)
        self.began_ns = began_ns
        self.is_sent = False

    def ended(self, request: InferenceRequest, variant: str, outcome: str) -> None:
        self._owner.close(self, variant, outcome)


class DoorSpans:
    """Bound to one front door, on its loop. `draw` is uniform in [0, 1)."""

    def __init__(
        self,
        tracer: ProcessTracer,
        config: TracingConfig,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._tracer = tracer.tracer
        self._ratio = config.sample_ratio
        self._honours_parent = config.honours_parent
        self._draw = draw
        self._open: dict[str, _Open] = {}

    def began(self, request: InferenceRequest) -> None:
        """Give the request a span if it is sampled; what it is sent with then names that span."""
        parent = None
        if request.trace_parent:
            place = callers_place(request.trace_parent, request.trace_state)
            if place is not None and self._honours_parent:
                if not place.trace_flags.sampled:
                    return
                parent = set_span_in_context(NonRecordingSpan(place))
        if parent is None and self._draw() >= self._ratio:
            return
        began_ns = time.time_ns()
        span = self._tracer.start_span(
            "infer",
            context=parent,
            kind=SpanKind.SERVER,
            start_time=began_ns,
            attributes={"squadron.model": request.model[:MAX_TEXT]},
        )
        if request.request_id:
            span.set_attribute("squadron.request_id", request.request_id[:MAX_TEXT])
        opened = _Open(self, span, began_ns)
        self._open[opened.text] = opened
        request.trace = opened.text
        request.follower = opened

    async def member(
        self, request: InferenceRequest, work: Awaitable[Found], name: str = "member"
    ) -> Found:
        """See `Follows.member`: a span in the trace of the request that led to it."""
        if not request.trace:
            return await work
        began_ns = time.time_ns()
        span = self._tracer.start_span(
            name,
            context=below(request.trace),
            start_time=began_ns,
            attributes={"squadron.model": request.model},
        )
        opened = _Open(self, span, began_ns)
        self._open[opened.text] = opened
        request.trace = opened.text
        outcome = "cancelled"
        try:
            found = await work
            outcome = "success"
        except SquadronError as error:
            outcome = error.code
            raise
        finally:
            self.close(opened, "", outcome)
        return found

    def transport(self, transport: Transport) -> Transport:
        """The same way to the replicas, with a span for the time that a request waited for it."""
        return _TracedTransport(self, transport)

    def sent(self, calls: Sequence[Call]) -> None:
        """These calls leave the door now."""
        for call in calls:
            opened = self._open.get(call.trace) if call.trace else None
            if opened is None:
                continue
            if opened.is_sent:
                opened.span.add_event("sent again")
                continue
            opened.is_sent = True
            span = self._tracer.start_span(
                "door queue",
                context=set_span_in_context(opened.span),
                start_time=opened.began_ns,
            )
            span.end()

    def close(self, opened: _Open, variant: str, outcome: str) -> None:
        self._open.pop(opened.text, None)
        span = opened.span
        span.set_attribute("squadron.outcome", outcome)
        if variant:
            span.set_attribute("squadron.variant", variant)
        if outcome not in ("success", "cancelled"):
            span.set_status(Status(StatusCode.ERROR, outcome))
        span.end()


class _TracedTransport:
    def __init__(self, spans: DoorSpans, transport: Transport) -> None:
        self._spans = spans
        self._transport = transport

    def send(
        self, calls: Sequence[Call], withdrawals: Withdrawals
    ) -> list[Reply] | Awaitable[list[Reply]]:
        self._spans.sent(calls)
        return self._transport.send(calls, withdrawals)
