"""The deciding rooms need neither Ray nor a network: a test here that reaches for one fails."""

from __future__ import annotations

import socket
import sys

import pytest


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise AssertionError(f"a test in tests/cluster opened a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)


@pytest.fixture(autouse=True, scope="session")
def no_ray() -> None:
    class Refuse:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "ray" or name.startswith("ray."):
                raise AssertionError("a test in tests/cluster imported ray")

    if "ray" not in sys.modules:
        sys.meta_path.insert(0, Refuse())  # type: ignore[arg-type]
