from __future__ import annotations

import asyncio
import time

import pytest

from loadtests.generator import Connection, Pool, Tally, Target

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


class Wire(asyncio.Transport):
    """Keeps what is written; answers when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))


def pool_of(num: int, *, is_closed_loop: bool = False) -> tuple[Pool, list[Connection], list[Wire]]:
    """Connections without sockets, idle."""
    target = Target(host="h", port=1, request=b"ask")
    pool = Pool(target, Tally(slo_ms=50.0), is_closed_loop=is_closed_loop)
    connections, wires = [Connection(pool) for _ in range(num)], [Wire() for _ in range(num)]
    for connection, wire in zip(connections, wires, strict=True):
        connection.connection_made(wire)
        pool.idle.append(connection)
    return pool, connections, wires


def test_latency_counts_from_the_intended_time_when_no_connection_was_free() -> None:
    pool, [connection], [wire] = pool_of(1)
    now_s = time.perf_counter()
    pool.offer(now_s)
    pool.offer(now_s - 3.0)

    assert wire.written == [b"ask"]

    connection.data_received(OK)
    assert wire.written == [b"ask", b"ask"]

    connection.data_received(OK)
    assert pool.tally.statuses == {200: 2}
    assert pool.tally.histogram.get_max_value() == pytest.approx(3_000_000, rel=0.2)
    assert pool.tally.num_good == 1


def test_other_statuses_are_counted_and_kept_out_of_the_latencies() -> None:
    pool, [connection], _ = pool_of(1)
    pool.offer(time.perf_counter())
    connection.data_received(BUSY)

    assert pool.tally.statuses == {503: 1}
    assert pool.tally.histogram.get_total_count() == 0
    assert pool.idle == [connection]


def test_a_closed_loop_sends_again_when_its_answer_is_there_and_stops_when_told() -> None:
    pool, [connection], [wire] = pool_of(1, is_closed_loop=True)
    pool.start_closed_loop()
    connection.data_received(OK[:20])
    assert pool.num_sent == 1

    connection.data_received(OK[20:])
    assert wire.written == [b"ask", b"ask"]

    pool.is_stopping = True
    connection.data_received(OK)
    assert pool.num_sent == 2
    assert not connection.is_busy


def test_a_lost_connection_loses_the_request_that_was_on_it() -> None:
    pool, [connection, other], _ = pool_of(2)
    pool.offer(time.perf_counter())
    pool.is_stopping = True
    other.connection_lost(None)

    assert pool.tally.statuses == {0: 1}
    assert pool.idle == [connection]
