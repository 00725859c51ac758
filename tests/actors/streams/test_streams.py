"""A decoupled model's replica and its socket: a user's generator, real Unix sockets, no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client.values
import pytest

from actors.model_replica import ReplicaSetup
from actors.streams.link import SUFFIX, WINDOW, StreamListener, open_stream
from actors.streams.replica import StreamReplica
from actors.streams.transport import NodeFirstStreams
from cluster.config.model_card import ModelCard
from cluster.config.variant import BatchingConfig
from cluster.engines.sharded.generate import generate
from cluster.errors import EngineFailed, InvalidRequest, ShardLost
from cluster.protocols.envelope import Call, Reply, decode_replies, encode_calls
from cluster.tensors import tensor

SOURCE = """
import numpy as np

NOTES = []


class Counter:
    def load(self, context):
        NOTES.clear()

    def stream(self, inputs, parameters):
        try:
            for value in range(int(inputs["N"][0])):
                NOTES.append(value)
                yield {"Y": np.array([value], np.int32)}
            if parameters.get("fail"):
                raise ValueError("the user's own words")
            if parameters.get("odd"):
                yield {"Z": np.array([1], np.int32)}
        finally:
            NOTES.append("closed")
"""


def setup(folder: Path, **batching: Any) -> ReplicaSetup:
    (folder / "counter.py").write_text(SOURCE)
    card = {
        "name": "counter",
        "format": "python",
        "python_class": "counter.py:Counter",
        "batched": False,
        "decoupled": True,
        "signature": {
            "inputs": [{"name": "N", "datatype": "INT32", "shape": [1]}],
            "outputs": [{"name": "Y", "datatype": "INT32", "shape": [1]}],
        },
    }
    return ReplicaSetup(
        variant="counter",
        card=ModelCard.model_validate(card),
        folder=folder,
        engine="python",
        device="cpu",
        threads=1,
        is_processed=True,
        batching=BatchingConfig.model_validate(batching),
    )


def notes() -> list[int | str]:
    import sys

    found: list[int | str] = sys.modules["squadron_model_counter_1_counter"].NOTES
    return found


Make = Callable[..., StreamReplica]


@pytest.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(prometheus_client.values, "ValueClass", prometheus_client.values.ValueClass)
    made: list[StreamReplica] = []

    def build(engine: Any = None, **batching: Any) -> StreamReplica:
        replica = StreamReplica(
            setup(tmp_path, **batching),
            metrics_at=tmp_path / "metrics",
            make_ready=None if engine is None else lambda _: engine,
        )
        if engine is None:
            notes().clear()
        made.append(replica)
        return replica

    yield build
    for replica in made:
        await replica.close()


def message(count: int, *, left_s: float = 30.0, **parameters: Any) -> bytes:
    inputs = (tensor("N", np.array([count], np.int32)),)
    call = Call(call_id=1, rows=1, left_s=left_s, inputs=inputs, parameters=parameters)
    return encode_calls([call])


def value_of(part: bytes) -> int:
    (reply,) = decode_replies(part)
    assert reply.error is None, reply.error
    return int(reply.outputs[0].array[0])


async def all_of(parts: AsyncGenerator[bytes, None]) -> list[Reply]:
    async with aclosing(parts):
        return [decode_replies(part)[0] async for part in parts]


async def closed() -> None:
    """Nothing tells a caller who has left; so this looks."""
    await until(lambda: notes()[-1:] == ["closed"])


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true")


async def test_each_response_is_an_envelope_of_its_own(make: Make) -> None:
    replies = await all_of(make().stream(message(3)))

    assert [int(reply.outputs[0].array[0]) for reply in replies] == [0, 1, 2]
    await closed()


async def test_an_error_of_the_model_is_the_last_reply(make: Make) -> None:
    *first, last = await all_of(make().stream(message(2, fail=True)))

    assert len(first) == 2
    assert isinstance(last.error, EngineFailed)
    assert last.error.message == (
        "counter.py:Counter.stream raised ValueError: the user's own words"
    )


class _Language:
    """As the engines of language models do, it refuses before there is anything to go through."""

    def stream(self, inputs: Any, parameters: Any) -> Any:
        return generate(self._logits, {"input_ids": inputs["N"]}, parameters, end=lambda: None)

    def close(self) -> None: ...

    def _logits(self, ids: Any) -> Any:
        return np.eye(8, dtype=np.float32)[ids[:, -1:] + 1]


async def test_what_is_refused_at_once_is_an_answer_and_no_lost_replica(
    make: Make, tmp_path: Path
) -> None:
    listener = StreamListener(tmp_path / f"r{SUFFIX}", make(_Language()).stream)
    await listener.start()
    (refused,) = await all_of(open_stream(listener.path, message(3, max_tokens=-1)))
    fine = await all_of(open_stream(listener.path, message(3, max_tokens=2)))
    await listener.drain()

    assert isinstance(refused.error, InvalidRequest)
    assert refused.error.message == "max_tokens is -1; allowed: 1 to 1000000"
    assert [int(reply.outputs[0].array[0]) for reply in fine] == [4, 5]


async def test_an_output_that_the_card_does_not_have_is_an_error(make: Make) -> None:
    (last,) = await all_of(make().stream(message(0, odd=True)))

    assert last.error is not None
    assert "gave an output 'Z'" in last.error.message


async def test_a_stream_past_its_deadline_ends_with_that_error(make: Make) -> None:
    (last,) = await all_of(make().stream(message(10, left_s=0.0)))

    assert last.error is not None
    assert last.error.code == "deadline_exceeded"


async def test_streams_take_turns_in_one_thread(make: Make) -> None:
    replica = make()
    a, b = replica.stream(message(5)), replica.stream(message(5))
    async with aclosing(a), aclosing(b):
        found = [value_of(await anext(stream)) for stream in (a, b, a, b)]

    assert found == [0, 0, 1, 1]


async def test_more_streams_than_the_queue_takes_are_refused(make: Make) -> None:
    replica = make(max_queue_size=1)
    async with aclosing(replica.stream(message(5))) as first:
        await anext(first)
        (refused,) = await all_of(replica.stream(message(1)))
    (fine,) = await all_of(replica.stream(message(1)))

    assert refused.error is not None
    assert refused.error.message == "Exceeds maximum queue size (1)"
    assert fine.error is None


async def test_plain_inference_is_refused(make: Make) -> None:
    (reply,) = decode_replies(await make().infer(message(1)))

    assert reply.error is not None
    assert reply.error.http_status == 501


async def test_a_stream_over_the_socket_is_whole(make: Make, tmp_path: Path) -> None:
    listener = StreamListener(tmp_path / f"r{SUFFIX}", make().stream)
    await listener.start()
    count = 5 * WINDOW
    async with aclosing(open_stream(listener.path, message(count))) as parts:
        assert [value_of(part) async for part in parts] == list(range(count))
    await listener.drain()


async def test_a_reader_that_takes_nothing_stops_the_model(make: Make, tmp_path: Path) -> None:
    listener = StreamListener(tmp_path / f"r{SUFFIX}", make().stream)
    await listener.start()
    async with aclosing(open_stream(listener.path, message(10_000))) as parts:
        await anext(parts)
        await until(lambda: len(notes()) >= WINDOW)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(notes()) == WINDOW
    await closed()
    assert len(notes()) == WINDOW + 1
    await listener.drain()


async def test_a_connection_that_ends_early_is_a_lost_replica(tmp_path: Path) -> None:
    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.write(b"\x02\x00\x00\x00ab" + b"\x05\x00")
        writer.close()

    path = tmp_path / f"r{SUFFIX}"
    server = await asyncio.start_unix_server(dies, str(path))
    async with aclosing(open_stream(path, b"call")) as parts:
        assert await anext(parts) == b"ab"
        with pytest.raises(ShardLost, match="not complete"):
            await anext(parts)
    server.close()


async def test_a_stream_is_whole_for_a_reader_behind_a_replica_that_is_done(
    tmp_path: Path,
) -> None:
    is_made = asyncio.Event()

    async def three(message: bytes) -> AsyncGenerator[bytes, None]:
        for part in (b"1", b"2", b"3"):
            yield part
        is_made.set()

    listener = StreamListener(tmp_path / f"replica{SUFFIX}", three)
    await listener.start()
    found = []
    async with aclosing(open_stream(listener.path, b"call")) as parts:
        async for part in parts:
            found.append(part)
            await is_made.wait()
            # Turns of the loop in which a replica that hung up would be noticed.
            for _ in range(20):
                await asyncio.sleep(0)
    await listener.drain()

    assert found == [b"1", b"2", b"3"]


async def test_drain_finishes_open_streams_and_takes_no_more(make: Make, tmp_path: Path) -> None:
    listener = StreamListener(tmp_path / f"r{SUFFIX}", make().stream)
    await listener.start()
    async with aclosing(open_stream(listener.path, message(3 * WINDOW))) as parts:
        await anext(parts)
        draining = asyncio.create_task(listener.drain())
        await asyncio.sleep(0)
        rest = [value_of(part) async for part in parts]
    await draining

    assert rest == list(range(1, 3 * WINDOW))
    assert not listener.path.exists()


class _Elsewhere:
    """Another node's replica: it says so."""

    async def stream(self, call: Call) -> AsyncGenerator[Reply, None]:
        yield Reply(call_id=99)


async def test_the_node_goes_first_and_a_dead_socket_is_passed_over(
    make: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    dead = await asyncio.start_unix_server(lambda r, w: None, str(folder / f"a{SUFFIX}"))
    dead.close()
    await dead.wait_closed()
    listener = StreamListener(folder / f"b{SUFFIX}", make().stream)
    await listener.start()
    streams = NodeFirstStreams(folder, _Elsewhere())
    inputs = (tensor("N", np.array([2], np.int32)),)
    call = Call(call_id=1, rows=1, left_s=30.0, inputs=inputs)

    here = [reply.call_id async for reply in streams.stream(call)]
    await listener.drain()
    there = [reply.call_id async for reply in streams.stream(call)]

    assert (here, there) == ([1, 1], [99])
