"""Replicas of streams and of sequences: their spans, of real engines over real envelopes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.sequences.replica import SequenceReplica
from actors.streams.replica import StreamReplica
from cluster.config.observability.tracing import TracingConfig
from cluster.protocols.envelope import Call, decode_replies, encode_calls
from cluster.requests import SequenceStep
from cluster.tensors import tensor
from tests.actors.sequences.test_sequences import setup as setup_of_sequences
from tests.actors.streams.test_streams import setup as setup_of_streams
from tests.actors.tracing.collector import Collector, grpc_collector

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with grpc_collector() as found:
        yield found


def tracing(collector: Collector) -> TracingConfig:
    return TracingConfig(endpoint=collector.endpoint, export_every_s=0.05)


async def test_a_stream_is_a_span_from_its_beginning_to_its_end(
    tmp_path: Path, collector: Collector
) -> None:
    setup = replace(setup_of_streams(tmp_path), tracing=tracing(collector))
    replica = StreamReplica(setup, metrics_at=tmp_path / "metrics")
    inputs = (tensor("N", np.array([3], np.int32)),)
    for trace in ("", SAMPLED):
        call = Call(call_id=1, rows=1, left_s=30, inputs=inputs, trace=trace)
        parts = [part async for part in replica.stream(encode_calls([call]))]
        assert len(parts) == 3
    await replica.close()

    (span,) = await asyncio.to_thread(collector.named, "stream")
    assert (span.trace, span.parent, span.attributes) == (
        TRACE,
        PARENT,
        {"squadron.variant": "counter"},
    )


async def test_a_step_of_a_sequence_waits_and_is_in_a_batch(
    tmp_path: Path, collector: Collector
) -> None:
    setup = replace(setup_of_sequences(tmp_path), tracing=tracing(collector))
    replica = SequenceReplica(setup, metrics_at=tmp_path / "metrics")
    (spec,) = setup.card.raw_signature().inputs[:1]
    x = tensor(spec.name, np.ones((1, 1), np.int32))
    call = Call(
        call_id=1,
        rows=1,
        left_s=30,
        inputs=(x,),
        sequence=SequenceStep(id=7, is_start=True, is_end=True),
        trace=SAMPLED,
    )
    (reply,) = decode_replies(await replica.infer(encode_calls([call])))
    assert reply.error is None, reply.error
    await replica.close()

    (batch,) = await asyncio.to_thread(collector.named, "batch")
    (queue,), (engine,) = collector.named("queue"), collector.named("engine")
    assert (queue.parent, batch.parent, engine.parent) == (PARENT, PARENT, batch.span)
    assert batch.links == (PARENT,)
