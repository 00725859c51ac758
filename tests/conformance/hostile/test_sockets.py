"""Callers that mean ill, over real sockets, at a running Squadron: clear refusals, bounded memory,
and everybody else is served meanwhile."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import struct
import zlib
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.conformance.clients.asking import check_simple, client, pair
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e]
MIB = 2**20
GROWTH_BYTES = 256 * MIB
"""What one attack may leave or hold at its end: a few bodies of the largest size allowed (64 MiB),
which the process's allocator may keep for the next ones."""
INFER = b"POST /v2/models/simple/infer HTTP/1.1\r\nhost: localhost\r\n"


def resident_bytes(server: Running) -> int:
    """Of the server and every process below it; pages that they share count in each."""
    family = psutil.Process(server.process.pid).children(recursive=True)
    total = 0
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


@pytest.fixture
def survives(triton_models: Running) -> Iterator[Running]:
    """The server, which must have grown by little and serve others when the attack is over."""
    with client(triton_models, "http") as asking:
        asking.infer("simple", pair(_http()))
        before = resident_bytes(triton_models)
        yield triton_models
        grown = resident_bytes(triton_models) - before
        check_simple(asking.infer("simple", pair(_http())))
    assert grown < GROWTH_BYTES, f"{grown / MIB:.0f} MiB more than before"


def _http() -> object:
    import tritonclient.http

    return tritonclient.http


def connect(server: Running) -> socket.socket:
    host, port = server.http_address.split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def pour(server: Running, head: bytes, part: bytes, num_bytes: int) -> tuple[int, bytes]:
    """`head`, then `part` again and again: what was sent before the server hung up, its answer."""
    with connect(server) as connection:
        connection.sendall(head)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < num_bytes:
                connection.sendall(part)
                sent += len(part)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            return sent, connection.recv(4096)
    return sent, b""


@pytest.mark.parametrize(
    "head",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nx: ",
        b"GET / HTTP/1.1\r\n",
        INFER + b"transfer-encoding: chunked\r\n\r\n0\r\nx: ",
        INFER + b"transfer-encoding: chunked\r\n\r\n5;",
    ],
    ids=["url", "header value", "header name", "trailer", "chunk extension"],
)
def test_a_gigabyte_in_one_line_is_not_read(survives: Running, head: bytes) -> None:
    sent, answer = pour(survives, head, b"a" * MIB, 1024 * MIB)

    assert sent < 64 * MIB
    assert answer[:10] in (b"", b"HTTP/1.1 4")


def test_a_gigabyte_in_a_chunk_is_not_read(survives: Running) -> None:
    head = INFER + b"transfer-encoding: chunked\r\n\r\n40000000\r\n"
    sent, answer = pour(survives, head, b" " * MIB, 1024 * MIB)

    assert sent <= 128 * MIB
    assert answer[:12] in (b"", b"HTTP/1.1 413")


def test_a_gigabyte_that_was_announced_is_refused_and_thrown_away(survives: Running) -> None:
    """The server reads on for a second, so that a caller who sends before it reads gets its answer;
    nothing of it is kept."""
    length = b"content-length: 1073741824\r\n\r\n"
    with connect(survives) as connection:
        connection.sendall(INFER + length)
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    _, answer = pour(survives, INFER + length, b" " * MIB, 1024 * MIB)

    assert answer[:12] in (b"", b"HTTP/1.1 413")


def test_millions_of_chunks_are_not_read(survives: Running) -> None:
    head = INFER + b"transfer-encoding: chunked\r\n\r\n"
    part = b"1\r\n \r\n" * 10_000
    sent, answer = pour(survives, head, part, 256 * MIB)

    # 65,536 chunks are 0.4 MiB; the rest is what the sockets' buffers take.
    assert sent < 64 * MIB
    assert answer[:12] in (b"", b"HTTP/1.1 400")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_is_given_up_at_the_limit_of_a_body(survives: Running, coding: str) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    bomb = pack(bytes(1024 * MIB), 9)

    answer = httpx.post(
        f"{survives.http}/v2/models/simple/infer",
        content=bomb,
        headers={"content-encoding": coding, "content-type": "application/json"},
        timeout=60,
    )

    assert len(bomb) < 2 * MIB
    assert answer.status_code == 413
    assert "bytes" in answer.json()["error"]


def test_five_hundred_callers_that_say_nothing_more_hinder_nobody(survives: Running) -> None:
    heads = [b"", b"PO", INFER, INFER + b"content-length: 100\r\n\r\n{"]
    with contextlib.ExitStack() as stack:
        for number in range(500):
            connection = stack.enter_context(connect(survives))
            connection.sendall(heads[number % len(heads)])
        with client(survives, "http") as asking:
            for _ in range(50):
                check_simple(asking.infer("simple", pair(_http())))


@pytest.mark.slice
def test_callers_that_close_their_half_or_vanish_leave_nothing_behind(survives: Running) -> None:
    for number in range(300):
        with connect(survives) as connection:
            connection.sendall(INFER + b"content-length: 1000000\r\n\r\n" + b" " * 500_000)
            if number % 2:
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
            else:
                # Closing with a linger of 0 s resets the connection.
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"inputs": ' + b"[" * 10_000_000, "JSON"),
        (b'{"a":' * 1_000_000, "JSON"),
        (b'{"inputs": [' + b"{}," * 1_000_000 + b"{}]}", "name"),
        (
            json.dumps(
                {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2**40] * 8}]}
            ).encode(),
            "shape",
        ),
        (b'{"inputs": [{"name": "' + b"n" * 10_000_000 + b'"}]}', "name"),
        (b'{"inputs": ' + b"9" * 5_000_000 + b"}", ""),
    ],
    ids=["arrays", "objects", "many inputs", "shape overflow", "long name", "long number"],
)
def test_json_that_is_deep_wide_or_vast_is_refused(
    survives: Running, body: bytes, said: str
) -> None:
    answer = httpx.post(
        f"{survives.http}/v2/models/simple/infer",
        content=body,
        headers={"content-type": "application/json"},
        timeout=60,
    )

    assert answer.status_code == 400
    assert said in answer.json()["error"]
    assert len(answer.content) < 4096


@pytest.mark.slice
@pytest.mark.parametrize("length", ["0", "5", "99999999999999999999", "-1", "1e3", "0x10", " 7"])
def test_lies_in_the_binary_header_are_refused(survives: Running, length: str) -> None:
    with connect(survives) as connection:
        field = b"inference-header-content-length: " + length.encode() + b"\r\n"
        connection.sendall(INFER + field + b"content-length: 2\r\nconnection: close\r\n\r\n{}")
        answer = connection.recv(4096)

    assert answer.startswith(b"HTTP/1.1 400 ")


def test_grpc_messages_beyond_the_limit_are_refused(survives: Running) -> None:
    import grpc

    call = "/inference.GRPCInferenceService/ModelInfer"
    unlimited = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(survives.grpc, options=unlimited) as channel:
        ask = channel.unary_unary(call)
        for message, code in (
            (b"\x0a" + bytes(80 * MIB), grpc.StatusCode.RESOURCE_EXHAUSTED),
            (b"\xff" * 100, grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                ask(message, timeout=60)
            assert caught.value.code() is code
