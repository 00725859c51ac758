"""gRPC beside inference: health, metadata, statistics, settings, the repository."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from actors.descriptions import describe_model, describe_server, extensions, repository_index
from actors.extensions.offered import Offered
from actors.front_door import FrontDoor
from actors.listeners.grpc.shared_memory import GrpcSharedMemory, Unary
from actors.listeners.guard import check_peer
from cluster.errors import ModelNotFound
from cluster.protocols import v2_grpc
from cluster.protocols.extensions import grpc_messages
from cluster.protocols.extensions.reflection import answer_reflection
from cluster.protocols.extensions.statistics import statistics_json
from cluster.protocols.grpc_schema import HEALTH_SERVICE, SERVICE

WATCH_S = 0.5
"""How often a watched health is looked at."""


class GrpcManagement:
    """Bound to one front door."""

    def __init__(self, door: FrontDoor, offered: Offered) -> None:
        self._door = door
        self._offered = offered

    def methods(self) -> dict[str, Unary]:
        return {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "TraceSetting": self._trace_setting,
            "LogSettings": self._log_settings,
            **GrpcSharedMemory(self._offered.shared_memory).methods(),
        }

    async def health_check(self, data: bytes, context: Any) -> bytes:
        status = self._health_of(grpc_messages.decode_health(data))
        if status == "SERVICE_UNKNOWN":
            raise ModelNotFound("unknown service")
        return grpc_messages.encode_health(status)

    async def health_watch(self, data: bytes, context: Any) -> AsyncIterator[bytes]:
        """The status now and whenever it changes, until the caller leaves or the door closes."""
        service = grpc_messages.decode_health(data)
        told = ""
        while True:
            status = self._health_of(service)
            if status != told:
                told = status
                yield grpc_messages.encode_health(status)
            if self._door.is_draining:
                return
            await asyncio.sleep(WATCH_S)

    async def reflect(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for data in requests:
            yield answer_reflection(data)

    def _health_of(self, service: str) -> str:
        if service not in ("", SERVICE, HEALTH_SERVICE):
            return "SERVICE_UNKNOWN"
        return "NOT_SERVING" if self._door.not_ready() else "SERVING"

    async def _server_live(self, data: bytes, context: Any) -> bytes:
        return v2_grpc.encode_server_live(True)

    async def _server_ready(self, data: bytes, context: Any) -> bytes:
        return v2_grpc.encode_server_ready(not self._door.not_ready())

    async def _model_ready(self, data: bytes, context: Any) -> bytes:
        name, version = v2_grpc.decode_model_name("ModelReady", data)
        if name in self._door.table.unloaded:
            return v2_grpc.encode_model_ready(False)
        state, _ = self._door.table.state_of(self._door.route(name, version).name)
        return v2_grpc.encode_model_ready(state == "READY")

    async def _server_metadata(self, data: bytes, context: Any) -> bytes:
        described = describe_server(self._door)
        return v2_grpc.encode_server_metadata(
            str(described["name"]), str(described["version"]), extensions(self._door)
        )

    async def _model_metadata(self, data: bytes, context: Any) -> bytes:
        name, version = v2_grpc.decode_model_name("ModelMetadata", data)
        return v2_grpc.encode_model_metadata(describe_model(self._door, name, version))

    async def _model_config(self, data: bytes, context: Any) -> bytes:
        name, version = v2_grpc.decode_model_name("ModelConfig", data)
        return v2_grpc.encode_model_config(describe_model(self._door, name, version))

    async def _model_statistics(self, data: bytes, context: Any) -> bytes:
        name, version = v2_grpc.decode_model_name("ModelStatistics", data)
        found = await self._offered.statistics.of(name, version)
        return v2_grpc.encode_json("ModelStatistics", statistics_json(found))

    async def _repository_index(self, data: bytes, context: Any) -> bytes:
        grpc_messages.refuse_repository_name(grpc_messages.parsed("RepositoryIndex", data))
        only_ready = v2_grpc.decode_repository_index(data)
        return v2_grpc.encode_repository_index(repository_index(self._door, only_ready=only_ready))

    async def _load(self, data: bytes, context: Any) -> bytes:
        check_peer(context)
        model, config, files = grpc_messages.decode_load(data)
        await self._offered.repository.load(
            model, config, files, timeout_s=context.time_remaining()
        )
        return grpc_messages.encoded("RepositoryModelLoad")

    async def _unload(self, data: bytes, context: Any) -> bytes:
        check_peer(context)
        model, with_dependents = grpc_messages.decode_unload(data)
        await self._offered.repository.unload(model, with_dependents=with_dependents)
        return grpc_messages.encoded("RepositoryModelUnload")

    async def _trace_setting(self, data: bytes, context: Any) -> bytes:
        model, changes = grpc_messages.decode_trace_setting(data)
        settings = self._offered.settings
        if not changes:
            return grpc_messages.encode_trace_setting(settings.trace(model))
        check_peer(context)
        return grpc_messages.encode_trace_setting(settings.change_trace(changes, model))

    async def _log_settings(self, data: bytes, context: Any) -> bytes:
        changes = grpc_messages.decode_log_settings(data)
        settings = self._offered.settings
        if not changes:
            return grpc_messages.encode_log_settings(settings.log)
        check_peer(context)
        return grpc_messages.encode_log_settings(settings.change_log(changes))
