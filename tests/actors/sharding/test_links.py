from __future__ import annotations

import contextlib
import socket

import pytest

from actors.sharding.links import Hello, Listener, dial
from cluster.errors import ShardLost


@pytest.mark.parametrize("host", [None, "127.0.0.1"])
def test_a_member_is_found_by_its_rank(host: str | None) -> None:
    listener = Listener("secret", host)
    one = dial(listener.address, Hello(token="secret", rank=3, what="data"))
    other = listener.take(3, "data", 10)
    other.sendall(b"hello")

    assert one.recv(5) == b"hello"

    for sock in (one, other):
        sock.close()
    listener.close()


@pytest.mark.parametrize("token", ["guess", "schl\u00fcssel"])
def test_a_stranger_is_let_go(token: str) -> None:
    listener = Listener("secret")
    stranger = dial(listener.address, Hello(token=token, rank=0, what="control"))
    stranger.settimeout(10)

    assert stranger.recv(1) == b""
    with pytest.raises(ShardLost, match=r"shard 0 did not connect within 0\.1 s"):
        listener.take(0, "control", 0.1)

    stranger.close()
    listener.close()


def test_bytes_that_are_no_hello_end_their_own_connection_only() -> None:
    listener = Listener("secret", "127.0.0.1")
    host, port = listener.address.removeprefix("tcp:").split(":")
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\x05\0\0\0junk!", b"\xff\xff\xff\xff"):
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(junk)
            # Where unread bytes were left it ends with a reset.
            with contextlib.suppress(OSError):
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.recv(1) == b""

    one = dial(listener.address, Hello(token="secret", rank=1, what="control"))
    listener.take(1, "control", 10).close()
    one.close()
    listener.close()


def test_nobody_at_the_address_is_an_error_of_ours() -> None:
    with pytest.raises(ShardLost, match="cannot reach a shard"):
        dial("unix:/nowhere/s", Hello(token="x", rank=0, what="data"))
