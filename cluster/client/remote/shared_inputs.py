"""Large inputs in shared memory, for a server on the same machine.

A region is registered once and used again; calls at the same time have regions of their own. Needs
`server.shared_memory.enabled` in the server's configuration.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
from threading import Lock
from typing import Any, Protocol

import orjson

from cluster.client.remote.coding import Body
from cluster.errors import SquadronError
from cluster.protocols.v2_binary import bytes_from_tensor
from cluster.tensors import Array, tensor

PREFIX = "squadron_"
"""What the key of an object must begin with by the server's defaults."""
MIN_BYTES = 64 * 1024
"""Smaller inputs travel in the body."""


class Sends(Protocol):
    def send(self, method: str, path: str, body: Body) -> object: ...


class SharedInputs:
    """Of one server."""

    def __init__(self, server: Sends) -> None:
        self._server = server
        self._lock = Lock()
        self._free: list[SharedMemory] = []

    @contextmanager
    def placed(self, inputs: Mapping[str, Array]) -> Iterator[dict[str, dict[str, Any]]]:
        """Parameters of those inputs that lie in shared memory while the block runs.

        A region whose call failed is given up: the server may still read it.
        """
        chosen = {n: a for n, a in inputs.items() if a.dtype.kind != "O" and a.nbytes >= MIN_BYTES}
        if not chosen:
            yield {}
            return
        region = self._take(sum(array.nbytes for array in chosen.values()))
        places: dict[str, dict[str, Any]] = {}
        at = 0
        for name, array in chosen.items():
            data = bytes_from_tensor(tensor(name, array))
            assert region.buf is not None, "an open region"
            region.buf[at : at + len(data)] = data
            places[name] = {
                "shared_memory_region": region.name.lstrip("/"),
                "shared_memory_byte_size": len(data),
                "shared_memory_offset": at,
            }
            at += len(data)
        try:
            yield places
        except BaseException:
            self._give_up(region)
            raise
        with self._lock:
            self._free.append(region)

    def close(self) -> None:
        with self._lock:
            regions, self._free = self._free, []
        for region in regions:
            self._give_up(region)

    def _take(self, num_bytes: int) -> SharedMemory:
        with self._lock:
            for region in self._free:
                if region.size >= num_bytes:
                    self._free.remove(region)
                    return region
        name = f"{PREFIX}{secrets.token_hex(8)}"
        made = SharedMemory(name=name, create=True, size=num_bytes)
        told = {"key": f"/{name}", "offset": 0, "byte_size": num_bytes}
        path = f"/v2/systemsharedmemory/region/{name}/register"
        try:
            self._server.send("POST", path, Body(content=orjson.dumps(told)))
        except SquadronError:
            made.close()
            made.unlink()
            raise
        return made

    def _give_up(self, region: SharedMemory) -> None:
        name = region.name.lstrip("/")
        try:
            path = f"/v2/systemsharedmemory/region/{name}/unregister"
            self._server.send("POST", path, Body(content=b""))
        except SquadronError:
            # The server is gone or has forgotten it: ours is to free the memory.
            pass
        region.close()
        region.unlink()
