"""Spans of a replica: each request's time in the queue, the batch that it was in, the engine.

A batch belongs to several requests, and a span has one parent only: it is a child of its first
sampled request and linked to all of them; each of the others has a span `execute` of its own, which
is linked to the batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from opentelemetry.trace import Link, Span, Status, StatusCode, set_span_in_context

from actors.batching.engine_run import EngineRun
from actors.batching.runner import BatchRunner
from actors.tracing.context import below, place_of, text_of
from actors.tracing.engine_span import ENGINE_SPAN
from actors.tracing.nvtx import NvtxRanges, open_ranges
from actors.tracing.spans import ProcessTracer, open_tracer, wall_ns
from cluster.config.observability.tracing import TracingConfig
from cluster.protocols.envelope import Call
from cluster.tensors import Array


class ReplicaSpans:
    """Of one replica; batches come one after the other. `tracer` is None with NVTX alone."""

    def __init__(
        self,
        tracer: ProcessTracer | None,
        ranges: NvtxRanges | None,
        variant: str,
        *,
        is_own: bool = True,
    ) -> None:
        """`is_own`: the tracer ends with the replica."""
        self._process = tracer if is_own else None
        self._tracer: Any = tracer.tracer if tracer is not None else None
        self._ranges = ranges
        self._variant = {"squadron.variant": variant}
        self._batch: Span | None = None

    def waits(self) -> None:
        """Calls were put into the queue."""
        if self._ranges is not None:
            self._ranges.waits()

    def taken(self, waited: Sequence[tuple[Call, float]]) -> None:
        """These calls leave the queue, where each was since the monotonic time beside it."""
        if self._ranges is not None:
            self._ranges.taken()
        if self._tracer is None:
            return
        for call, arrived_s in waited:
            if call.trace:
                span = self._tracer.start_span(
                    "queue",
                    context=below(call.trace),
                    start_time=wall_ns(arrived_s),
                    attributes=self._variant,
                )
                span.end()

    def wants(self, calls: Sequence[Call]) -> bool:
        """Whether anything is to be made of this batch; most of them have no sampled request."""
        return self._ranges is not None or any(call.trace for call in calls)

    @property
    def is_in_batch(self) -> bool:
        return self._ranges is not None or self._batch is not None

    @contextmanager
    def batch(self, calls: Sequence[Call]) -> Iterator[None]:
        with ExitStack() as stack:
            if self._ranges is not None:
                stack.enter_context(self._ranges.range(f"squadron batch of {len(calls)}"))
            sampled = [call for call in calls if call.trace]
            if sampled and self._tracer is not None:
                stack.enter_context(self._batch_span(calls, sampled))
            yield

    @contextmanager
    def engine(self, rows: int) -> Iterator[None]:
        """In the thread that calls the engine."""
        with ExitStack() as stack:
            if self._ranges is not None:
                stack.enter_context(self._ranges.range("squadron engine"))
            if self._batch is not None:
                stack.enter_context(self._engine_span(set_span_in_context(self._batch), rows))
            yield

    @contextmanager
    def stream(self, call: Call) -> Iterator[str]:
        """Around a stream of responses; the span's text for `ENGINE_SPAN`, empty without one."""
        if not call.trace or self._tracer is None:
            yield ""
            return
        span = self._tracer.start_span(
            "stream", context=below(call.trace), attributes=self._variant
        )
        try:
            yield text_of(span)
        finally:
            span.end()

    def close(self) -> None:
        if self._process is not None:
            self._process.close()

    @contextmanager
    def _batch_span(self, calls: Sequence[Call], sampled: Sequence[Call]) -> Iterator[None]:
        began_ns = time.time_ns()
        span = self._tracer.start_span(
            "batch",
            context=below(sampled[0].trace),
            links=[Link(place_of(call.trace)) for call in sampled],
            start_time=began_ns,
            attributes={
                **self._variant,
                "squadron.batch.requests": len(calls),
                "squadron.batch.rows": sum([call.rows for call in calls]),
            },
        )
        self._batch = span
        try:
            yield
        except Exception as error:
            _failed(span, error)
            raise
        finally:
            self._batch = None
            ended_ns = time.time_ns()
            span.end(ended_ns)
            link = [Link(span.get_span_context())]
            for call in sampled[1:]:
                other = self._tracer.start_span(
                    "execute",
                    context=below(call.trace),
                    links=link,
                    start_time=began_ns,
                    attributes=self._variant,
                )
                other.end(ended_ns)

    @contextmanager
    def _engine_span(self, parent: Any, rows: int) -> Iterator[None]:
        span = self._tracer.start_span(
            "engine", context=parent, attributes={**self._variant, "squadron.batch.rows": rows}
        )
        token = ENGINE_SPAN.set(text_of(span))
        try:
            yield
        except Exception as error:
            _failed(span, error)
            raise
        finally:
            ENGINE_SPAN.reset(token)
            span.end()


class TracedEngineRun(EngineRun):
    """`EngineRun` of a replica with tracing."""

    def __init__(self, spans: ReplicaSpans, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._spans = spans

    def infer(self, inputs: dict[str, Array], rows: int) -> dict[str, Array]:
        if not self._spans.is_in_batch:
            return super().infer(inputs, rows)
        with self._spans.engine(rows):
            return super().infer(inputs, rows)


class TracedBatchRunner(BatchRunner):
    """`BatchRunner` of a replica with tracing."""

    def __init__(self, spans: ReplicaSpans, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._spans = spans

    def _compute(
        self,
        merge: Callable[[], dict[str, Array]],
        calls: Sequence[Call],
        *,
        clock: Callable[[], float],
        is_timed: bool = False,
    ) -> dict[str, Array]:
        if not self._spans.wants(calls):
            return super()._compute(merge, calls, clock=clock, is_timed=is_timed)
        with self._spans.batch(calls):
            return super()._compute(merge, calls, clock=clock, is_timed=is_timed)


def replica_spans(
    config: TracingConfig | None, variant: str, tracer: ProcessTracer | None = None
) -> ReplicaSpans | None:
    """None where nothing is traced. `tracer`: that of the process, where it has one already."""
    if config is None:
        return None
    ranges = open_ranges(config.nvtx)
    is_own = tracer is None
    if config.endpoint and tracer is None:
        tracer = open_tracer(config, role="replica", variant=variant)
    if tracer is None and ranges is None:
        return None
    return ReplicaSpans(tracer, ranges, variant, is_own=is_own)


def _failed(span: Span, error: Exception) -> None:
    # By name: an error's text may hold what a caller sent.
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
