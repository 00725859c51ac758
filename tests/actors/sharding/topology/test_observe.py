from __future__ import annotations

import socket

import pytest

from cluster.cli.plan.running import running_topology
from cluster.errors import ConfigError


def test_a_ray_that_does_not_answer_is_told_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"

        with pytest.raises(ConfigError, match=f"nothing answers at {address}"):
            running_topology(address)
