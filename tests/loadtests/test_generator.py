from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from threading import Thread

import pytest

from loadtests.connections import FD_SETSIZE, Pool, Tally, Target
from loadtests.generator import callers, closed_loop, open_loop
from loadtests.latencies import histogram_of
from loadtests.usage import Watched

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
LAST = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.wfile.write(OK)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def http_server() -> Iterator[int]:
    """The port of a server of the standard library's."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


class Wires:
    """Both ends of each connection; the server's ends in the order of their opening."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []

    def connect(self, target: Target) -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.settimeout(0.2)
        self.ends.append(theirs)
        return ours

    def asked(self, number: int = 0) -> bytes:
        try:
            return self.ends[number].recv(1 << 16)
        except TimeoutError:
            return b""


@pytest.fixture
def wires() -> Iterator[Wires]:
    found = Wires()
    yield found
    for end in found.ends:
        end.close()


def pool_of(
    num: int,
    wires: Wires,
    *,
    request: bytes = b"ask",
    is_closed_loop: bool = False,
    patience_s: float = inf,
) -> Pool:
    target = Target(host="h", port=1, request=request)
    pool = Pool(
        target,
        Tally(),
        is_closed_loop=is_closed_loop,
        patience_s=patience_s,
        connect=wires.connect,
    )
    pool.open(num)
    return pool


def test_latency_counts_from_the_intended_time_when_no_connection_was_free(wires: Wires) -> None:
    with pool_of(1, wires) as pool:
        now_s = time.perf_counter()
        pool.offer(now_s)
        pool.offer(now_s - 3.0)
        assert wires.asked() == b"ask"

        wires.ends[0].sendall(OK)
        pool.turn(1.0)
        assert wires.asked() == b"ask"

        wires.ends[0].sendall(OK)
        pool.turn(1.0)
    assert pool.tally.statuses == {200: 2}
    assert max(pool.tally.latencies_s) == pytest.approx(3.0, rel=0.2)
    assert pool.tally.num_good(2_000.0) == 1
    assert pool.tally.num_good(None) == 2


def test_other_statuses_are_counted_and_kept_out_of_the_latencies(wires: Wires) -> None:
    with pool_of(1, wires) as pool:
        pool.offer(time.perf_counter())
        wires.ends[0].sendall(BUSY)
        pool.turn(1.0)
        assert pool.num_open() == 0
    assert pool.tally.statuses == {503: 1}
    assert pool.tally.latencies_s == []


def test_a_closed_loop_sends_again_when_its_whole_answer_is_there(wires: Wires) -> None:
    with pool_of(1, wires, is_closed_loop=True) as pool:
        pool.start_closed_loop()
        assert wires.asked() == b"ask"
        wires.ends[0].sendall(OK[:20])
        pool.turn(1.0)
        assert pool.num_sent == 1

        wires.ends[0].sendall(OK[20:])
        pool.turn(1.0)
        assert pool.num_sent == 2
        assert wires.asked() == b"ask"


def test_a_lost_connection_loses_the_request_on_it_and_is_replaced(wires: Wires) -> None:
    with pool_of(2, wires) as pool:
        pool.offer(time.perf_counter())
        wires.ends[1].close()
        pool.turn(1.0)
        assert pool.tally.statuses == {0: 1}

        wires.ends[0].close()
        pool.turn(1.0)
        assert pool.tally.statuses == {0: 1}
        for _ in range(2):
            pool.offer(time.perf_counter())
        assert [wires.asked(2), wires.asked(3)] == [b"ask", b"ask"]


def test_an_answer_that_closes_its_connection_loses_no_request(wires: Wires) -> None:
    with pool_of(1, wires) as pool:
        for _ in range(2):
            pool.offer(time.perf_counter())
        wires.asked()
        wires.ends[0].sendall(LAST)
        wires.ends[0].close()
        pool.turn(1.0)
        assert wires.asked(1) == b"ask"
        wires.ends[1].sendall(OK)
        pool.turn(1.0)
    assert pool.tally.statuses == {200: 2}


def test_what_a_socket_does_not_take_at_once_follows(wires: Wires) -> None:
    request = b"x" * 3_000_000
    with pool_of(1, wires, request=request) as pool:
        pool.offer(time.perf_counter())
        came = bytearray(wires.asked())
        while len(came) < len(request):
            pool.turn(0.1)
            came += wires.asked()
        wires.ends[0].sendall(OK)
        pool.turn(1.0)
    assert came == request
    assert pool.tally.statuses == {200: 1}


def test_both_loops_against_a_server() -> None:
    with http_server() as port:
        target = Target(host="127.0.0.1", port=port, request=b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        watched = Watched(pids={})
        capacity = closed_loop(target, connections=4, seconds=0.1, watched=watched)
        load = open_loop(target, rate_per_s=200, seconds=0.5, watched=watched, connections=8)
    assert capacity.num_ok == sum(capacity.statuses.values()) > 0
    assert load.statuses == {200: load.num_sent}
    assert load.num_good == load.histogram.get_total_count() == load.num_sent


def test_a_process_with_thousands_of_files_waits_as_well(wires: Wires) -> None:
    with ExitStack() as files:
        for _ in range(FD_SETSIZE):
            files.enter_context(open(os.devnull))
        with pool_of(1, wires) as pool:
            assert pool._selector.fileno() > FD_SETSIZE
            pool.offer(time.perf_counter())
            pool.turn(0.001)
            wires.ends[0].sendall(OK)
            pool.turn(1.0)
    assert pool.tally.statuses == {200: 1}


def test_who_waits_too_long_for_a_connection_gives_up_and_the_last_to_come_is_sent(
    wires: Wires,
) -> None:
    with pool_of(1, wires, patience_s=1.0) as pool:
        now_s = time.perf_counter()
        for since_s in (now_s, now_s - 2.0, now_s - 0.2, now_s - 0.1):
            pool.offer(since_s)
        wires.ends[0].sendall(OK)
        pool.turn(1.0)
        assert pool.tally.statuses == {200: 1, 0: 1}
        assert [each.since_s for each in pool._all] == [now_s - 0.1]
        assert pool.num_open() == 2


def test_callers_are_as_many_as_wait_for_an_answer() -> None:
    assert callers(1_000, 100, at_least=64) == 150
    assert callers(1_000, 1, at_least=64) == 64
    assert callers(1e6, 1_000, at_least=64) == 4096


def test_a_histogram_keeps_every_latency_within_its_range() -> None:
    histogram = histogram_of([0.0, 0.001, 0.001, 1e6])
    assert histogram.get_total_count() == 4
    assert histogram.get_value_at_percentile(50) == 1000
    assert histogram_of([]).get_total_count() == 0
