"""What a process uses where it traces, and where it does not. Chosen once: nothing of OpenTelemetry
is loaded, made or asked for where nothing is traced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from actors.batching.engine_run import EngineRun
from actors.batching.runner import BatchRunner
from cluster.config.observability.tracing import TracingConfig
from cluster.protocols.envelope import Call

if TYPE_CHECKING:
    from actors.tracing.door import DoorSpans
    from actors.tracing.replica import ReplicaSpans
    from actors.tracing.spans import ProcessTracer


def tracer_of(config: TracingConfig | None, *, role: str) -> ProcessTracer | None:
    """Of this process. None where no spans are sent."""
    if config is None or not config.endpoint:
        return None
    from actors.tracing.spans import open_tracer

    return open_tracer(config, role=role)


def door_spans(tracer: ProcessTracer | None, config: TracingConfig | None) -> DoorSpans | None:
    if tracer is None or config is None:
        return None
    from actors.tracing.door import DoorSpans

    return DoorSpans(tracer, config)


def spans_of(
    config: TracingConfig | None, variant: str, tracer: ProcessTracer | None = None
) -> ReplicaSpans | None:
    """Of a replica. `tracer`: that of the process, where it has one already."""
    if config is None:
        return None
    from actors.tracing.replica import replica_spans

    return replica_spans(config, variant, tracer)


def span_of_stream(spans: ReplicaSpans | None, call: Call) -> AbstractContextManager[str]:
    """Around a stream of responses; gives what goes into `ENGINE_SPAN`."""
    return nullcontext("") if spans is None else spans.stream(call)


async def close_spans(spans: ReplicaSpans | None) -> None:
    """Send the last ones."""
    if spans is not None:
        await asyncio.to_thread(spans.close)


def opened_runs(
    spans: ReplicaSpans | None,
) -> tuple[Callable[..., EngineRun], Callable[..., BatchRunner]]:
    """What runs a replica's engine, and what runs its batches."""
    if spans is None:
        return EngineRun, BatchRunner
    from actors.tracing.replica import TracedBatchRunner, TracedEngineRun

    return partial(TracedEngineRun, spans), partial(TracedBatchRunner, spans)
