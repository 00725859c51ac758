"""Traces as a collector receives them, of requests over real HTTP and gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.actors.tracing.collector import Collector, grpc_collector, http_collector
from tests.actors.tracing.doors import Traced, body, traced_door

T = TypeVar("T")

INFER = "/v2/models/v/infer"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with grpc_collector() as found:
        yield found


def tracing(collector: Collector, **more: object) -> dict[str, object]:
    return {"endpoint": collector.endpoint, "sample_ratio": 1, "export_every_s": 0.05, **more}


async def ask(door: Traced, path: str = INFER, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(base_url=door.http, headers=named) as client:
        return await client.post(path, content=body())


async def received(read: Callable[[], T]) -> T:
    return await asyncio.to_thread(read)


@pytest.mark.parametrize(
    ("protocol", "receiver"), [("grpc", grpc_collector), ("http", http_collector)]
)
async def test_a_request_is_one_trace_from_the_door_to_the_engine(
    tmp_path: Path, protocol: str, receiver: Callable[[], AbstractContextManager[Collector]]
) -> None:
    with receiver() as collector:
        async with traced_door(tmp_path, tracing=tracing(collector, protocol=protocol)) as door:
            assert (await ask(door, x_request_id="mine")).status_code == 200
            (engine,) = await received(lambda: collector.named("engine"))
            (root,) = await received(lambda: collector.named("infer"))

    parents = {span.name: span.parent for span in collector.spans}
    (batch,) = collector.named("batch")
    assert parents == {
        "infer": "",
        "door queue": root.span,
        "queue": root.span,
        "batch": root.span,
        "engine": batch.span,
    }
    assert {span.trace for span in collector.spans} == {root.trace}
    assert {span.name: span.role for span in collector.spans} == {
        "infer": "door",
        "door queue": "door",
        "queue": "replica",
        "batch": "replica",
        "engine": "replica",
    }
    assert root.attributes == {
        "squadron.model": "v",
        "squadron.request_id": "mine",
        "squadron.outcome": "success",
        "squadron.variant": "v",
    }
    assert root.began_ns <= batch.began_ns <= engine.began_ns
    assert engine.ended_ns <= batch.ended_ns <= root.ended_ns


async def test_a_batch_of_eight_is_linked_to_its_eight_requests(
    tmp_path: Path, collector: Collector
) -> None:
    async with traced_door(tmp_path, tracing=tracing(collector)) as door:
        door.engine.gate.clear()
        first = asyncio.create_task(ask(door))
        assert await received(lambda: door.engine.began.wait(20))
        eight = [asyncio.create_task(ask(door)) for _ in range(8)]
        async with asyncio.timeout(20):
            while len(door.replica._scheduler) < 8:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        door.engine.gate.set()
        assert {reply.status_code for reply in await asyncio.gather(first, *eight)} == {200}
        roots = await received(lambda: collector.named("infer", 9))
        _, batch = await received(lambda: collector.named("batch", 2))
        others = await received(lambda: collector.named("execute", 7))

    in_batch = {root.span for root in roots} & set(batch.links)
    assert len(batch.links) == len(in_batch) == 8
    assert batch.attributes["squadron.batch.requests"] == 8
    assert batch.attributes["squadron.batch.rows"] == 8
    # Seen from each of the eight: the batch itself, or a span that leads to it.
    assert {batch.parent, *(other.parent for other in others)} == in_batch
    assert [other.links for other in others] == [(batch.span,)] * 7
    assert len({root.trace for root in roots}) == 9


async def test_the_callers_place_in_its_trace_is_kept_over_http(
    tmp_path: Path, collector: Collector
) -> None:
    async with traced_door(tmp_path, tracing=tracing(collector, sample_ratio=0)) as door:
        await ask(door, traceparent=SAMPLED, tracestate="vendor=1,other=a:b")
        await ask(door, traceparent=NOT_SAMPLED)
        await ask(door)
        await received(lambda: collector.named("engine"))
        (root,) = await received(lambda: collector.named("infer"))

    assert (root.trace, root.parent) == (TRACE, PARENT)
    assert {span.trace for span in collector.spans} == {TRACE}
    # Also in another process: the state went along in the envelope.
    assert {span.state for span in collector.spans} == {"vendor=1,other=a:b"}
    # Nothing travels for who is not sampled.
    assert [bool(call.trace) for call in door.sent] == [True, False, False]


async def test_the_callers_place_in_its_trace_is_kept_over_grpc(
    tmp_path: Path, collector: Collector
) -> None:
    def infer(address: str, metadata: dict[str, str]) -> None:
        with triton.InferenceServerClient(address) as client:
            given = triton.InferInput("x", [1, 4], "FP32")
            given.set_data_from_numpy(np.ones((1, 4), np.float32))
            client.infer("v", [given], headers=metadata)

    async with traced_door(tmp_path, tracing=tracing(collector, sample_ratio=0)) as door:
        await received(lambda: infer(door.grpc, {"traceparent": SAMPLED, "tracestate": "a=b"}))
        await received(lambda: infer(door.grpc, {"traceparent": NOT_SAMPLED}))
        await received(lambda: collector.named("engine"))
        (root,) = await received(lambda: collector.named("infer"))

    assert (root.trace, root.parent, root.state) == (TRACE, PARENT, "a=b")
    assert {span.trace for span in collector.spans} == {TRACE}


async def test_callers_decide_nothing_where_they_are_not_trusted(
    tmp_path: Path, collector: Collector
) -> None:
    configured = tracing(collector, sample_ratio=0, honours_parent=False)
    async with traced_door(tmp_path, tracing=configured) as door:
        await ask(door, traceparent=SAMPLED)

    assert collector.spans == []
    assert [call.trace for call in door.sent] == [""]


async def test_a_traceparent_that_is_none_is_as_if_there_were_none(
    tmp_path: Path, collector: Collector
) -> None:
    wrong = [
        "nonsense",
        f"00-{'0' * 32}-{PARENT}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01-x" * 20,
    ]
    async with traced_door(tmp_path, tracing=tracing(collector)) as door:
        for each in wrong:
            assert (await ask(door, traceparent=each)).status_code == 200
        roots = await received(lambda: collector.named("infer", len(wrong)))

    assert TRACE not in {root.trace for root in roots}
    assert {root.parent for root in roots} == {""}


async def test_about_as_many_as_the_ratio_says_are_sampled(
    tmp_path: Path, collector: Collector
) -> None:
    async with traced_door(tmp_path, tracing=tracing(collector, sample_ratio=0.25)) as door:
        draws = iter([0.1, 0.25, 0.9, 0.24])
        assert door.front.follows is not None
        door.front.follows._draw = lambda: next(draws)  # type: ignore[attr-defined]
        for _ in range(4):
            await ask(door)
        await received(lambda: collector.named("infer", 2))

    assert [bool(call.trace) for call in door.sent] == [True, False, False, True]


async def test_the_members_of_an_ensemble_are_spans_below_it(
    tmp_path: Path, collector: Collector
) -> None:
    async with traced_door(tmp_path, tracing=tracing(collector)) as door:
        assert (await ask(door, "/v2/models/both/infer")).status_code == 200
        one, other = await received(lambda: collector.named("member", 2))
        (root,) = await received(lambda: collector.named("infer"))
        queues = await received(lambda: collector.named("queue", 2))

    assert [one.attributes["squadron.model"], other.attributes["squadron.model"]] == ["v", "w"]
    assert (one.parent, other.parent) == (root.span, root.span)
    assert [queue.parent for queue in queues] == [one.span, other.span]
    assert {span.trace for span in collector.spans} == {root.trace}


async def test_a_mirrored_copy_is_in_the_trace_of_its_original(
    tmp_path: Path, collector: Collector
) -> None:
    async with traced_door(tmp_path, tracing=tracing(collector)) as door:
        assert (await ask(door, "/v2/models/mirrored/infer")).status_code == 200
        (copy,) = await received(lambda: collector.named("mirror"))
        (root,) = await received(lambda: collector.named("infer"))
        original, copied = await received(lambda: collector.named("batch", 2))

    assert copy.parent == root.span
    assert (original.parent, copied.parent) == (root.span, copy.span)


async def test_an_engine_that_fails_is_seen_and_not_quoted(
    tmp_path: Path, collector: Collector
) -> None:
    async with traced_door(tmp_path, tracing=tracing(collector)) as door:
        door.engine.fails = True
        assert (await ask(door)).status_code == 500
        (root,) = await received(lambda: collector.named("infer"))
        (engine,) = await received(lambda: collector.named("engine"))

    assert root.is_error
    assert engine.is_error
    assert root.attributes["squadron.outcome"] == "engine_failed"
    assert "not for callers" not in str(collector.spans)


async def test_a_caller_that_leaves_ends_its_span(tmp_path: Path, collector: Collector) -> None:
    async with traced_door(tmp_path, tracing=tracing(collector)) as door:
        door.engine.gate.clear()
        asking = asyncio.create_task(ask(door))
        assert await received(lambda: door.engine.began.wait(20))
        asking.cancel()
        (root,) = await received(lambda: collector.named("infer"))

    assert root.attributes["squadron.outcome"] == "cancelled"
    assert not root.is_error


async def test_without_tracing_nothing_is_made_and_nothing_travels(tmp_path: Path) -> None:
    async with traced_door(tmp_path) as door:
        assert (await ask(door, traceparent=SAMPLED)).status_code == 200

    assert door.front.follows is None
    assert type(door.replica._runner).__name__ == "BatchRunner"
    assert [call.trace for call in door.sent] == [""]


async def test_requests_are_answered_when_the_collector_is_away(tmp_path: Path) -> None:
    nobody = {"endpoint": "http://127.0.0.1:9", "sample_ratio": 1, "export_every_s": 0.05}
    async with traced_door(tmp_path, tracing=nobody) as door:
        assert [(await ask(door)).status_code for _ in range(5)] == [200] * 5


def test_the_real_receiver_refuses_what_is_not_otlp(collector: Collector) -> None:
    address = collector.endpoint.removeprefix("http://")
    export = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(export)(b"\xff\xff\xff")
