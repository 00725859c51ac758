"""CUDA regions that another process made: an IPC handle cannot be opened by its own maker."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.extensions import cuda_memory
from actors.extensions.cuda_memory import CudaMemory
from actors.extensions.shared_memory import SharedMemory
from cluster.config.server import SharedMemoryConfig
from cluster.errors import AlreadyExists, InvalidRequest
from cluster.requests import RegionSlice, RequestedOutput

pytestmark = pytest.mark.skipif(
    cuda_memory.unavailable() != "",
    reason=f"CUDA shared memory was not tried: {cuda_memory.unavailable()}",
)

MAKER = """
import sys
from cuda.bindings import runtime
_, address = runtime.cudaMalloc(4096)
data = (b"question" + bytes(4088))
runtime.cudaMemcpy(address, data, 4096, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)
_, handle = runtime.cudaIpcGetMemHandle(address)
print(bytes(handle.reserved).hex(), flush=True)
sys.stdin.readline()
back = bytearray(8)
runtime.cudaMemcpy(back, address + 8, 8, runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)
print(back.hex(), flush=True)
"""


@pytest.fixture
def maker() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.communicate(timeout=30)


def test_a_region_of_another_process_is_read_and_written(
    maker: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert maker.stdout is not None
    assert maker.stdin is not None
    handle = bytes.fromhex(maker.stdout.readline())
    memory = SharedMemory(SharedMemoryConfig(enabled=True), tmp_path, CudaMemory())

    memory.cuda_register("c", handle, 0, 64)
    with pytest.raises(AlreadyExists):
        memory.cuda_register("c", handle, 0, 64)
    assert memory.cuda_status() == [{"name": "c", "device_id": 0, "byte_size": 64}]
    assert memory.read(RegionSlice(region="c", offset=0, byte_size=8)) == b"question"
    place = RegionSlice(region="c", offset=8, byte_size=8)
    with memory.held([RequestedOutput(name="y", place=place)]) as places:
        places.write(place, b"response")
    with pytest.raises(InvalidRequest, match="Invalid offset"):
        memory.read(RegionSlice(region="c", offset=60, byte_size=8))
    memory.cuda_unregister()

    maker.stdin.write("\n")
    maker.stdin.flush()
    assert bytes.fromhex(maker.stdout.readline()) == b"response"


def test_a_region_beyond_its_allocation_is_refused(
    maker: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert maker.stdout is not None
    handle = bytes.fromhex(maker.stdout.readline())
    memory = SharedMemory(SharedMemoryConfig(enabled=True), tmp_path, CudaMemory())

    with pytest.raises(InvalidRequest, match="invalid args"):
        memory.cuda_register("c", handle, 0, 2**40)
    with pytest.raises(InvalidRequest, match="64 bytes"):
        memory.cuda_register("c", b"short", 0, 64)
