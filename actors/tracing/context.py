"""A span's place in its trace, as it travels: `traceparent`, a blank and `tracestate` if any.

What comes from callers is read by OpenTelemetry's own propagator; between our processes the text is
ours and always of a sampled span, so that it is cut, not parsed.
Source: W3C Trace Context, sections 3.2 and 3.3.
"""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

MAX_STATE = 512
"""Characters of `tracestate` that go on: what the recommendation asks for at least."""

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_CALLERS = TraceContextTextMapPropagator()


def text_of(span: Span) -> str:
    """For the next process."""
    context = span.get_span_context()
    text = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
    state = context.trace_state.to_header()
    return f"{text} {state}" if 0 < len(state) <= MAX_STATE else text


def place_of(text: str) -> SpanContext:
    """Of what `text_of` wrote."""
    state = text[56:]
    return SpanContext(
        trace_id=int(text[3:35], 16),
        span_id=int(text[36:52], 16),
        is_remote=True,
        trace_flags=_SAMPLED,
        trace_state=TraceState.from_header([state]) if state else None,
    )


def below(text: str) -> Context:
    """Where a child of what `text_of` wrote begins."""
    return set_span_in_context(NonRecordingSpan(place_of(text)), Context())


def callers_place(trace_parent: str, trace_state: str) -> SpanContext | None:
    """What the headers of a request say; None for what is no `traceparent`."""
    headers = {"traceparent": trace_parent, "tracestate": trace_state}
    found = get_current_span(_CALLERS.extract(headers, Context())).get_span_context()
    return found if found.is_valid else None


def trace_id_of(text: str) -> str:
    """32 hexadecimal digits; empty when there is no trace."""
    return text[3:35]
