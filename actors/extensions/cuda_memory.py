"""CUDA shared memory: regions of a GPU that a caller opened to us by an IPC handle.

The door opens the handle by the CUDA runtime (`cuda.bindings`, which torch's CUDA build brings) and
copies between the region and its own memory: engines live in other processes. One door only,
because an opened handle belongs to the process that opened it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from cluster.errors import AlreadyExists, InvalidRequest, RegionNotFound, Unsupported
from cluster.protocols.extensions.shared_memory import HANDLE_BYTES, check_within
from cluster.requests import RegionSlice


@cache
def unavailable() -> str:
    """Why there is no CUDA shared memory in this process; empty when there is."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        return "the server has no CUDA runtime (package cuda-bindings)"
    error, num_devices = runtime.cudaGetDeviceCount()
    if error != runtime.cudaError_t.cudaSuccess or num_devices == 0:
        return "the server has no GPU"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _CudaRegion:
    """`address` is the region's begin in this process's view of the device."""

    device_id: int
    byte_size: int
    address: int


class CudaMemory:
    """Lives on one door's event loop."""

    def __init__(self, *, is_only_door: bool = True) -> None:
        self._is_only_door = is_only_door
        self._regions: dict[str, _CudaRegion] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._regions

    def status(self, name: str = "") -> list[dict[str, str | int]]:
        """Raises: RegionNotFound."""
        if name and name not in self._regions:
            raise RegionNotFound(f"Unable to find cuda shared memory region: '{name[:256]}'")
        return [
            {"name": each, "device_id": region.device_id, "byte_size": region.byte_size}
            for each, region in sorted(self._regions.items())
            if name in ("", each)
        ]

    def check_possible(self) -> None:
        """Raises: Unsupported."""
        reason = unavailable()
        if not reason and not self._is_only_door:
            reason = "server.doors_per_node must be 1 for it"
        if reason:
            raise Unsupported(f"failed to register CUDA shared memory region: {reason}")

    def register(self, name: str, handle: bytes, device_id: int, byte_size: int) -> None:
        """Raises: Unsupported, AlreadyExists, InvalidRequest."""
        self.check_possible()
        if name in self._regions:
            raise AlreadyExists(f"shared memory region '{name}' already in manager")
        address = _opened(name, handle, device_id)
        size = _bytes_from(address)
        if byte_size > size:
            _closed(address)
            raise InvalidRequest(
                f"failed to register shared memory region '{name}': invalid args: byte_size "
                f"{byte_size} goes beyond the allocation's {size} bytes"
            )
        self._regions[name] = _CudaRegion(device_id=device_id, byte_size=byte_size, address=address)

    def unregister(self, name: str = "") -> None:
        """One or all; an unknown name is no error."""
        for each in [each for each in self._regions if name in ("", each)]:
            _closed(self._regions.pop(each).address)

    def check(self, place: RegionSlice) -> None:
        """Raises: InvalidRequest."""
        check_within(place, self._regions[place.region].byte_size)

    def read(self, place: RegionSlice) -> bytes:
        """A copy of the slice. Raises: InvalidRequest."""
        self.check(place)
        host = np.empty(place.byte_size, np.uint8)
        address = self._regions[place.region].address + place.offset
        _copy(host.ctypes.data, address, place.byte_size, "cudaMemcpyDeviceToHost")
        return host.tobytes()

    def write(self, place: RegionSlice, data: bytes | memoryview) -> None:
        """Raises: RegionNotFound when it is not registered any more; InvalidRequest."""
        if place.region not in self._regions:
            raise RegionNotFound(f"Unable to find shared memory region: '{place.region[:256]}'")
        self.check(place)
        host = np.frombuffer(data, np.uint8)
        address = self._regions[place.region].address + place.offset
        _copy(address, host.ctypes.data, len(host), "cudaMemcpyHostToDevice")


def _opened(name: str, handle: bytes, device_id: int) -> int:
    from cuda.bindings import runtime

    if len(handle) != HANDLE_BYTES:
        raise InvalidRequest(
            f"failed to register CUDA shared memory region '{name}': a CUDA IPC handle has "
            f"{HANDLE_BYTES} bytes, got {len(handle)}"
        )
    (error,) = runtime.cudaSetDevice(device_id)
    opaque = runtime.cudaIpcMemHandle_t()
    opaque.reserved = handle
    if error == runtime.cudaError_t.cudaSuccess:
        error, address = runtime.cudaIpcOpenMemHandle(
            opaque, runtime.cudaIpcMemLazyEnablePeerAccess
        )
    if error != runtime.cudaError_t.cudaSuccess:
        raise InvalidRequest(
            f"failed to register CUDA shared memory region '{name}': invalid args: {error.name}"
        )
    return int(address)


def _bytes_from(address: int) -> int:
    """From the address to the end of the allocation it lies in."""
    from cuda.bindings import driver

    error, base, size = driver.cuMemGetAddressRange(address)
    if error != driver.CUresult.CUDA_SUCCESS:
        return 0
    return int(base) + int(size) - address


def _copy(to: int, source: int, num_bytes: int, kind: str) -> None:
    from cuda.bindings import runtime

    direction: Any = getattr(runtime.cudaMemcpyKind, kind)
    (error,) = runtime.cudaMemcpy(to, source, num_bytes, direction)
    if error != runtime.cudaError_t.cudaSuccess:
        raise InvalidRequest(f"CUDA shared memory cannot be copied: {error.name}")


def _closed(address: int) -> None:
    from cuda.bindings import runtime

    runtime.cudaIpcCloseMemHandle(address)
