from __future__ import annotations

import socket
from pathlib import Path

import pytest

from actors.listeners.port_claim import claim_port, listening_socket
from cluster.errors import ConfigError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_that_another_program_shares_out_is_refused(tmp_path: Path) -> None:
    port = free_port()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()

        with pytest.raises(ConfigError, match=rf"server.http.port: cannot listen on .*:{port}"):
            claim_port("127.0.0.1", port, key="server.http.port", folder=tmp_path)


def test_two_doors_of_one_node_may_share_a_port(tmp_path: Path) -> None:
    port = free_port()
    with (
        claim_port("127.0.0.1", port, key="k", folder=tmp_path) as first,
        listening_socket(first) as one,
    ):
        one.listen()
        with (
            claim_port("127.0.0.1", port, key="k", folder=tmp_path) as second,
            listening_socket(second) as two,
        ):
            two.listen()

            assert one.getsockname() == two.getsockname()


def test_a_released_port_can_be_claimed_again(tmp_path: Path) -> None:
    port = free_port()
    claim_port("127.0.0.1", port, key="k", folder=tmp_path).release()

    with claim_port("127.0.0.1", port, key="k", folder=tmp_path) as again:
        assert again.port == port


def test_port_zero_takes_a_free_one(tmp_path: Path) -> None:
    with claim_port("127.0.0.1", 0, key="k", folder=tmp_path) as claim:
        assert claim.port > 0
