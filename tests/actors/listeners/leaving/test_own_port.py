from __future__ import annotations

import socket
import sys

import pytest

from actors.listeners.leaving.own_port import OwnPort

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="a process sees its sockets on Linux only"
)


def listening() -> socket.socket:
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    found.listen()
    return found


def test_listeners_and_connections_of_a_port_are_found() -> None:
    with listening() as one, listening() as other:
        own = OwnPort(one.getsockname()[1])
        assert own.num_connections() == 0
        with socket.create_connection(one.getsockname()) as caller:
            accepted, _ = one.accept()
            with accepted:
                caller.sendall(b"x")
                assert own.num_connections() == 1
                assert OwnPort(other.getsockname()[1]).num_connections() == 0
                assert not own.has_sister()

        found = own.listener()
        assert found is not None
        assert found.is_open()


def test_nobody_new_gets_in_and_who_is_in_stays() -> None:
    with listening() as sock, socket.create_connection(sock.getsockname()) as caller:
        accepted, _ = sock.accept()
        own = OwnPort(sock.getsockname()[1])
        found = own.listener()
        assert found is not None

        own.turn_newcomers_away()
        with socket.socket() as newcomer:
            newcomer.settimeout(0.3)
            with pytest.raises(TimeoutError):
                newcomer.connect(sock.getsockname())
        own.stop_listening()

        assert not found.is_open()
        with accepted:
            accepted.sendall(b"hello")
            assert caller.recv(5) == b"hello"


def test_a_listener_that_is_closed_is_not_open_even_if_its_number_is_used_again() -> None:
    sock = listening()
    found = OwnPort(sock.getsockname()[1]).listener()
    assert found is not None

    sock.close()
    with listening():
        assert not found.is_open()
