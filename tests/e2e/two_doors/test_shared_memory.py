"""System shared memory with the public clients, on a node with two doors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from tests.e2e.running import Running
from tests.e2e.two_doors.models import NUM_FLOATS
from tests.e2e.two_doors.models import SHM_PREFIX as PREFIX

pytestmark = pytest.mark.e2e

CLIENTS = pytest.mark.parametrize("module", [http_client, grpc_client], ids=["http", "grpc"])
SIZE = 4 * NUM_FLOATS


@contextmanager
def connected(served: Running, module: Any) -> Iterator[Any]:
    address = served.http_address if module is http_client else served.grpc
    with module.InferenceServerClient(address) as client:
        yield client
        client.unregister_system_shared_memory()


@contextmanager
def region(client: Any, name: str, size: int) -> Iterator[Any]:
    """A region that the caller made and registered."""
    key = PREFIX + name
    handle = shm.create_shared_memory_region(name, key, size)
    try:
        client.register_system_shared_memory(name, key, size)
        yield handle
    finally:
        shm.destroy_shared_memory_region(handle)


def infer(client: Any, module: Any, model: str, shape: list[int], datatype: str, size: int) -> Any:
    asked = module.InferInput("x", shape, datatype)
    asked.set_shared_memory("in", size)
    wanted = module.InferRequestedOutput("y")
    wanted.set_shared_memory("out", size)
    return client.infer(model, [asked], outputs=[wanted])


@CLIENTS
def test_a_megabyte_goes_in_and_out(served: Running, module: Any) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(connected(served, module))
        given = stack.enter_context(region(client, "in", SIZE))
        taken = stack.enter_context(region(client, "out", SIZE))
        values = np.arange(NUM_FLOATS, dtype=np.float32).reshape(1, NUM_FLOATS)
        shm.set_shared_memory_region(given, [values])
        infer(client, module, "megabyte", [1, NUM_FLOATS], "FP32", SIZE)
        found = shm.get_contents_as_numpy(taken, np.float32, [1, NUM_FLOATS])

        np.testing.assert_array_equal(found, 2 * values + 1)


@CLIENTS
def test_texts_go_in_and_out(served: Running, module: Any) -> None:
    texts = np.array([["hello", "wörld", ""]], dtype=object)
    coded = serialize_byte_tensor(texts)
    with ExitStack() as stack:
        client = stack.enter_context(connected(served, module))
        given = stack.enter_context(region(client, "in", 64))
        taken = stack.enter_context(region(client, "out", 64))
        shm.set_shared_memory_region(given, [coded])
        infer(client, module, "texts", [1, 3], "BYTES", coded.item().__len__())
        found = shm.get_contents_as_numpy(taken, np.object_, [1, 3])

        assert [item.decode() for item in found.flat] == ["hello", "wörld", ""]


@CLIENTS
def test_a_region_is_listed_until_it_is_unregistered(served: Running, module: Any) -> None:
    as_json = {} if module is http_client else {"as_json": True}
    with ExitStack() as stack:
        client = stack.enter_context(connected(served, module))
        stack.enter_context(region(client, "in", 64))
        with pytest.raises(InferenceServerException, match="'in' already in manager"):
            client.register_system_shared_memory("in", PREFIX + "in", 64)
        status = client.get_system_shared_memory_status("in", **as_json)
        client.unregister_system_shared_memory("in")
        with pytest.raises(InferenceServerException, match="Unable to find system shared memory"):
            client.get_system_shared_memory_status("in")

    (found,) = status if module is http_client else status["regions"].values()
    assert (found["name"], found["key"], int(found["byte_size"])) == ("in", PREFIX + "in", 64)


@CLIENTS
def test_mistakes_are_the_callers_errors(served: Running, module: Any) -> None:
    with connected(served, module) as client:
        for key, size, said in (
            (PREFIX + "none", 64, f"Unable to open shared memory region: '{PREFIX}none'"),
            ("/", 64, "invalid args"),
            ("///", 64, "invalid args"),
            ("/triton_python_backend_shm_region_0", 64, "reserved"),
            ("/psm_other", 64, "allowed prefix"),
        ):
            with pytest.raises(InferenceServerException, match=said):
                client.register_system_shared_memory("in", key, size)
        handle = shm.create_shared_memory_region("in", PREFIX + "in", 64)
        try:
            with pytest.raises(InferenceServerException, match=r"failed to register.*invalid args"):
                client.register_system_shared_memory("in", PREFIX + "in", 65)
        finally:
            shm.destroy_shared_memory_region(handle)


@CLIENTS
def test_both_doors_use_what_one_was_told(served: Running, module: Any) -> None:
    """Every request of a fresh connection may meet either door; each must know each change."""
    with ExitStack() as stack:
        client = stack.enter_context(connected(served, module))
        given = stack.enter_context(region(client, "in", 16))
        stack.enter_context(region(client, "out", 16))
        shm.set_shared_memory_region(given, [np.frombuffer(b"\x04\0\0\0same", np.uint8)])

        def once(_: int) -> None:
            address = served.http_address if module is http_client else served.grpc
            with module.InferenceServerClient(address) as own:
                infer(own, module, "texts", [1, 1], "BYTES", 8)

        with ThreadPoolExecutor(8) as callers:
            list(callers.map(once, range(64)))
        client.unregister_system_shared_memory("in")
        for _ in range(16):
            with pytest.raises(InferenceServerException, match="Unable to find shared memory"):
                once(0)


def test_a_caller_that_cuts_its_region_short_harms_nobody(served: Running) -> None:
    doors = served.pids("ServeReplica:squadron:gateway")
    with ExitStack() as stack:
        client = stack.enter_context(connected(served, http_client))
        stack.enter_context(region(client, "in", SIZE))
        stack.enter_context(region(client, "out", SIZE))
        infer(client, http_client, "megabyte", [1, NUM_FLOATS], "FP32", SIZE)
        os.truncate(f"/dev/shm{PREFIX}out", 0)
        with pytest.raises(InferenceServerException, match="'out' has become shorter"):
            infer(client, http_client, "megabyte", [1, NUM_FLOATS], "FP32", SIZE)
        os.truncate(f"/dev/shm{PREFIX}in", 100)
        with pytest.raises(InferenceServerException, match="'in' has become shorter"):
            infer(client, http_client, "megabyte", [1, NUM_FLOATS], "FP32", SIZE)

    assert len(doors) == 2
    assert served.pids("ServeReplica:squadron:gateway") == doors
    assert httpx.get(f"{served.http}/v2/health/ready").status_code == 200


def test_cuda_regions_are_refused_with_the_reason_where_there_is_no_gpu(served: Running) -> None:
    extensions = httpx.get(f"{served.http}/v2").json()["extensions"]
    if "cuda_shared_memory" in extensions:
        pytest.skip("this machine has a GPU: see tests/gpu/test_cuda_shared_memory.py")
    with connected(served, http_client) as client:
        assert client.get_cuda_shared_memory_status() == []
        with pytest.raises(InferenceServerException, match="CUDA shared memory region") as error:
            client.register_cuda_shared_memory("c", b"AAAA", 0, 8)

    assert "system_shared_memory" in extensions
    assert error.value.status() == "501"
