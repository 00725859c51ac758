"""gRPC's calls about shared memory, and what of it its callers may use in a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from actors.extensions.shared_memory import SharedMemory
from actors.listeners.guard import check_peer
from cluster.protocols.extensions.grpc_messages import encoded, parsed
from cluster.protocols.extensions.shared_memory import Regions

Unary = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


def regions_of_peer(memory: SharedMemory, context: Any) -> Regions:
    """For a caller on this machine. Raises: Forbidden."""
    check_peer(context)
    return memory.regions(is_local=True)


class GrpcSharedMemory:
    """Bound to one door's shared memory; every call is for callers on this machine."""

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory

    def methods(self) -> dict[str, Unary]:
        return {
            "SystemSharedMemoryStatus": self._status,
            "SystemSharedMemoryRegister": self._register,
            "SystemSharedMemoryUnregister": self._unregister,
            "CudaSharedMemoryStatus": self._cuda_status,
            "CudaSharedMemoryRegister": self._cuda_register,
            "CudaSharedMemoryUnregister": self._cuda_unregister,
        }

    async def _status(self, data: bytes, context: Any) -> bytes:
        check_peer(context)
        asked = parsed("SystemSharedMemoryStatus", data)
        regions = {str(item["name"]): item for item in self._memory.status(asked.name)}
        return encoded("SystemSharedMemoryStatus", regions=regions)

    async def _register(self, data: bytes, context: Any) -> bytes:
        check_peer(context)
        asked = parsed("SystemSharedMemoryRegister", data)
        await self._memory.register(asked.name, asked.key, asked.offset, asked.byte_size)
        return encoded("SystemSharedMemoryRegister")

    async def _unregister(self, data: bytes, context: Any) -> bytes:
        check_peer(context)
        await self._memory.unregister(parsed("SystemSharedMemoryUnregister", data).name)
        return encoded("SystemSharedMemoryUnregister")

    async def _cuda_status(self, data: bytes, context: Any) -> bytes:
        check_peer(context)
        asked = parsed("CudaSharedMemoryStatus", data)
        regions = {str(item["name"]): item for item in self._memory.cuda_status(asked.name)}
        return encoded("CudaSharedMemoryStatus", regions=regions)

    async def _cuda_register(self, data: bytes, context: Any) -> bytes:
        check_peer(context)
        asked = parsed("CudaSharedMemoryRegister", data)
        self._memory.cuda_register(
            asked.name, bytes(asked.raw_handle), asked.device_id, asked.byte_size
        )
        return encoded("CudaSharedMemoryRegister")

    async def _cuda_unregister(self, data: bytes, context: Any) -> bytes:
        check_peer(context)
        self._memory.cuda_unregister(parsed("CudaSharedMemoryUnregister", data).name)
        return encoded("CudaSharedMemoryUnregister")
