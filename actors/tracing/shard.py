"""Spans of a shard: what it computes of each micro-batch, below the engine's span."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from opentelemetry.trace import Status, StatusCode

from actors.sharding.control import Setup
from actors.tracing.context import below
from actors.tracing.nvtx import open_ranges
from actors.tracing.spans import open_tracer
from cluster.config.observability.tracing import TracingConfig
from cluster.engines.sharded.part import Step, Values

Run = Callable[[Values, Step], Values]


def traced(run: Run, setup: Setup) -> Run:
    """`run`, with a span for each step of a sampled batch. The shard is ended without warning when
    its group is over: what ended less than `export_every_s` before may be lost."""
    config = TracingConfig.model_validate_json(setup.tracing)
    name = f"squadron stage {setup.stage}"
    ranges = open_ranges(config.nvtx)
    tracer = None
    if config.endpoint:
        tracer = open_tracer(config, role="shard", rank=setup.rank).tracer
    attributes: dict[str, str | int] = {
        "squadron.shard.rank": setup.rank,
        "squadron.shard.stage": setup.stage,
        "squadron.shard.tensor_rank": setup.tensor_rank,
        "squadron.shard.layers": f"{setup.layers[0]}-{setup.layers[1] - 1}",
        "squadron.shard.device": setup.device,
    }

    def run_traced(values: Values, step: Step) -> Values:
        with ExitStack() as stack:
            if ranges is not None:
                stack.enter_context(ranges.range(name))
            if tracer is None or not step.trace:
                return run(values, step)
            span = tracer.start_span("shard", context=below(step.trace), attributes=attributes)
            stack.callback(span.end)
            try:
                return run(values, step)
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    return run_traced if tracer is not None or ranges is not None else run
