"""Shared memory over HTTP: what is registered, register, unregister. On loopback only."""

from __future__ import annotations

from typing import Any

from actors.extensions.shared_memory import SharedMemory
from actors.listeners.guard import guarded
from actors.listeners.http_messages import HttpReply, HttpRequest, json_reply
from actors.listeners.routes.extensions import json_object
from actors.listeners.routes.table import Handler, Place, Route
from cluster.protocols.extensions.shared_memory import raw_handle


class SharedMemoryRoutes:
    """Bound to one door's shared memory."""

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory

    def routes(self) -> list[Route]:
        system, cuda = "/v2/systemsharedmemory", "/v2/cudasharedmemory"
        return [
            *_routes(system, "system", self._status, self._register, self._unregister),
            *_routes(cuda, "CUDA", self._cuda_status, self._cuda_register, self._cuda_unregister),
        ]

    async def _status(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply(self._memory.status(place.name))

    async def _register(self, request: HttpRequest, place: Place) -> HttpReply:
        asked = json_object(request.body)
        await self._memory.register(
            place.name, asked.get("key"), asked.get("offset", 0), asked.get("byte_size")
        )
        return HttpReply(status=200)

    async def _unregister(self, request: HttpRequest, place: Place) -> HttpReply:
        await self._memory.unregister(place.name)
        return HttpReply(status=200)

    async def _cuda_status(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply(self._memory.cuda_status(place.name))

    async def _cuda_register(self, request: HttpRequest, place: Place) -> HttpReply:
        asked: dict[str, Any] = json_object(request.body)
        self._memory.cuda_register(
            place.name,
            raw_handle(asked.get("raw_handle")),
            asked.get("device_id", 0),
            asked.get("byte_size"),
        )
        return HttpReply(status=200)

    async def _cuda_unregister(self, request: HttpRequest, place: Place) -> HttpReply:
        self._memory.cuda_unregister(place.name)
        return HttpReply(status=200)


def _routes(
    path: str, kind: str, status: Handler, register: Handler, unregister: Handler
) -> list[Route]:
    takes = "CudaRegion" if kind == "CUDA" else "Region"
    one = f"{path}/region/{{name}}"
    return [
        _get(f"{path}/status", status, f"The {kind} shared-memory regions"),
        _get(f"{one}/status", status, f"One {kind} shared-memory region"),
        _post(f"{one}/register", register, f"Register {kind} shared memory", takes),
        _post(f"{one}/unregister", unregister, f"Unregister a {kind} region"),
        _post(f"{path}/unregister", unregister, f"Unregister every {kind} region"),
    ]


def _get(path: str, answer: Handler, summary: str) -> Route:
    answer = guarded(answer, changes=False)
    return Route(method="GET", path=path, answer=answer, summary=summary, gives="Regions")


def _post(path: str, answer: Handler, summary: str, takes: str = "") -> Route:
    return Route(
        method="POST", path=path, answer=guarded(answer), summary=summary, takes=takes, gives=""
    )
