"""Parts of the protocol closed to callers without a key (`server.restricted`).

Handlers are wrapped once, when the doors are made: what is not restricted costs nothing. The texts
are Triton's, which its clients compare.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import wraps
from hmac import compare_digest
from typing import Any

from actors.listeners.http_messages import HttpReply, HttpRequest, HttpStream
from actors.listeners.routes.table import Handler, Place, Route
from cluster.config.security.references import resolve
from cluster.config.security.restricted import ApiGroup, RestrictedApis
from cluster.errors import Forbidden

GRPC_PREFIX = "triton-grpc-protocol-"

_RPCS: dict[ApiGroup, tuple[str, ...]] = {
    "health": ("ServerLive", "ServerReady", "ModelReady", "Check", "Watch"),
    "metadata": ("ServerMetadata", "ModelMetadata"),
    "inference": ("ModelInfer", "ModelStreamInfer"),
    "shared-memory": tuple(
        f"{kind}SharedMemory{what}"
        for kind in ("System", "Cuda")
        for what in ("Status", "Register", "Unregister")
    ),
    "model-config": ("ModelConfig",),
    "model-repository": ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
    "statistics": ("ModelStatistics",),
    "trace": ("TraceSetting",),
    "logging": ("LogSettings",),
}
_LAST_WORDS: dict[str, ApiGroup] = {
    "ready": "health",
    "live": "health",
    "infer": "inference",
    "generate": "inference",
    "generate_stream": "inference",
    "config": "model-config",
    "stats": "statistics",
    "setting": "trace",
    "logging": "logging",
}
_OPENAI_WORDS: dict[str, ApiGroup] = {
    "completions": "inference",
    "embeddings": "inference",
    "score": "inference",
    "rerank": "inference",
    "tokenize": "inference",
    "detokenize": "inference",
    "health": "health",
    "ping": "health",
    "version": "metadata",
}
"""The language models' routes do what V2's do, so the same keys close them."""
Unary = Callable[[bytes, Any], Awaitable[bytes]]
Streaming = Callable[[Any, Any], AsyncIterator[bytes]]


def group_of_path(path: str) -> ApiGroup | None:
    """The group of a route's template; None for what is no part of the protocol."""
    parts = path.strip("/").split("/")
    if parts[-1] in _OPENAI_WORDS:
        return _OPENAI_WORDS[parts[-1]]
    if parts[0] == "v1":
        return "metadata"
    if parts[0] != "v2":
        return None
    if len(parts) > 1 and parts[1] == "repository":
        return "model-repository"
    if len(parts) > 1 and parts[1].endswith("sharedmemory"):
        return "shared-memory"
    return _LAST_WORDS.get(parts[-1], "metadata")


def group_of_rpc(name: str) -> ApiGroup | None:
    """The group of a gRPC method; None for reflection."""
    return next((group for group, names in _RPCS.items() if name in names), None)


class Restrictions:
    """What the configuration closes."""

    def __init__(self, restricted: Iterable[RestrictedApis]) -> None:
        self._entries: dict[ApiGroup | None, RestrictedApis] = {
            group: entry for entry in map(_resolved, restricted) for group in entry.apis
        }

    def routes(self, routes: Iterable[Route]) -> list[Route]:
        """The same routes, those of a closed group behind its key."""
        closed = []
        for route in routes:
            entry = self._entries.get(group_of_path(route.path))
            if entry is not None:
                route = replace(route, answer=_behind(route.answer, entry))
            closed.append(route)
        return closed

    def unary(self, name: str, work: Unary) -> Unary:
        """The same gRPC method, behind its group's key where that is closed."""
        entry = self._entries.get(group_of_rpc(name))
        if entry is None:
            return work

        async def checked(data: bytes, context: Any) -> bytes:
            _check_metadata(context, entry)
            return await work(data, context)

        return checked

    def streaming(self, name: str, work: Streaming) -> Streaming:
        entry = self._entries.get(group_of_rpc(name))
        if entry is None:
            return work

        async def checked(asked: Any, context: Any) -> AsyncIterator[bytes]:
            _check_metadata(context, entry)
            async for part in work(asked, context):
                yield part

        return checked


def _resolved(entry: RestrictedApis) -> RestrictedApis:
    value = resolve(entry.value, os.environ, key="server.restricted.value")
    return entry.model_copy(update={"value": value})


def _behind(answer: Handler, entry: RestrictedApis) -> Handler:
    @wraps(answer)
    async def checked(request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        if not _is_key(request.headers, entry.header, entry.value):
            raise Forbidden(f"This API is restricted, expecting header '{entry.header}'")
        return await answer(request, place)

    return checked


def _check_metadata(context: Any, entry: RestrictedApis) -> None:
    key = GRPC_PREFIX + entry.header
    if not _is_key(dict(context.invocation_metadata() or ()), key, entry.value):
        raise Forbidden(f"This protocol is restricted, expecting header '{key}'")


def _is_key(headers: Mapping[str, str | bytes], key: str, value: str) -> bool:
    sent = headers.get(key, "")
    sent_bytes = sent if isinstance(sent, bytes) else sent.encode("utf-8", "surrogateescape")
    # In constant time: how much of a guess was right must not show.
    return compare_digest(sent_bytes, value.encode())
