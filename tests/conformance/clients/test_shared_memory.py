"""What Triton's shared-memory examples do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http.aio as http_aio
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from tests.conformance.clients.asking import MODULES, A, B, address, client, need, texts
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e]
both = pytest.mark.parametrize("transport", ["http", "grpc"])


@contextmanager
def regions(sizes: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Shared memory of the caller's, keyed as the examples key it."""
    made: dict[str, Any] = {}
    try:
        for name, size in sizes.items():
            made[name] = shm.create_shared_memory_region(name, f"/{name}_simple", size)
        yield made
    finally:
        for handle in made.values():
            shm.destroy_shared_memory_region(handle)


def requested(module: Any, size: int) -> tuple[list[Any], list[Any]]:
    inputs = [module.InferInput(f"INPUT{i}", [1, 16], "INT32") for i in (0, 1)]
    outputs = [module.InferRequestedOutput(f"OUTPUT{i}") for i in (0, 1)]
    for i in (0, 1):
        inputs[i].set_shared_memory("input_data", size, offset=i * size)
        outputs[i].set_shared_memory("output_data", size, offset=i * size)
    return inputs, outputs


def check(handle: Any, size: int) -> None:
    for i, expected in enumerate((A + B, A - B)):
        found = shm.get_contents_as_numpy(handle, np.int32, [1, 16], offset=i * size)
        np.testing.assert_array_equal(found, expected)


@both
@pytest.mark.slice
def test_tensors_in_and_out_through_shared_memory(triton_models: Running, transport: str) -> None:
    need(triton_models, "system_shared_memory")
    size = A.nbytes
    with (
        client(triton_models, transport) as asking,
        regions({"input_data": 2 * size, "output_data": 2 * size}) as made,
    ):
        asking.unregister_system_shared_memory()
        shm.set_shared_memory_region(made["input_data"], [A, B])
        for name in made:
            asking.register_system_shared_memory(name, f"/{name}_simple", 2 * size)
        inputs, outputs = requested(MODULES[transport], size)
        asking.infer("simple", inputs, outputs=outputs)
        status = asking.get_system_shared_memory_status()
        check(made["output_data"], size)
        assert len(status if transport == "http" else status.regions) == 2
        asking.unregister_system_shared_memory()
        left = asking.get_system_shared_memory_status()
        assert not (left if transport == "http" else left.regions)


@both
async def test_the_same_with_the_asyncio_clients(triton_models: Running, transport: str) -> None:
    need(triton_models, "system_shared_memory")
    module: Any = http_aio if transport == "http" else grpc_aio
    size = A.nbytes
    with regions({"input_data": 2 * size, "output_data": 2 * size}) as made:
        shm.set_shared_memory_region(made["input_data"], [A, B])
        async with module.InferenceServerClient(address(triton_models, transport)) as asking:
            await asking.unregister_system_shared_memory()
            for name in made:
                await asking.register_system_shared_memory(name, f"/{name}_simple", 2 * size)
            inputs, outputs = requested(module, size)
            await asking.infer("simple", inputs, outputs=outputs)
            check(made["output_data"], size)
            await asking.unregister_system_shared_memory()


@both
def test_text_through_shared_memory(triton_models: Running, transport: str) -> None:
    need(triton_models, "system_shared_memory")
    module = MODULES[transport]
    given = [serialize_byte_tensor(texts(numbers)) for numbers in (A, B)]
    num_bytes = [len(each.item()) for each in given]
    size = max(num_bytes)
    with (
        client(triton_models, transport) as asking,
        regions({"input_data": 2 * size, "output_data": 512}) as made,
    ):
        asking.unregister_system_shared_memory()
        for i, array in enumerate(given):
            shm.set_shared_memory_region(made["input_data"], [array], offset=i * size)
        asking.register_system_shared_memory("input_data", "/input_data_simple", 2 * size)
        asking.register_system_shared_memory("output_data", "/output_data_simple", 512)
        inputs = [module.InferInput(f"INPUT{i}", [1, 16], "BYTES") for i in (0, 1)]
        for i in (0, 1):
            inputs[i].set_shared_memory("input_data", num_bytes[i], offset=i * size)
        output = module.InferRequestedOutput("OUTPUT0")
        output.set_shared_memory("output_data", 512)
        asking.infer("simple_string", inputs, outputs=[output])
        found = shm.get_contents_as_numpy(made["output_data"], np.object_, [1, 16])
        asking.unregister_system_shared_memory()

    assert [int(each) for each in found.flat] == (A + B).flatten().tolist()


@both
def test_what_is_wrong_with_a_region_is_told_as_triton_tells_it(
    triton_models: Running, transport: str
) -> None:
    need(triton_models, "system_shared_memory")
    with client(triton_models, transport) as asking, regions({"input_data": 64}):
        asking.unregister_system_shared_memory()
        with pytest.raises(InferenceServerException, match="Unable to open shared memory region"):
            asking.register_system_shared_memory("nobodys", "/test_shm", 64)
        asking.register_system_shared_memory("input_data", "/input_data_simple", 64)
        with pytest.raises(InferenceServerException, match="already"):
            asking.register_system_shared_memory("input_data", "/input_data_simple", 64)
        asking.unregister_system_shared_memory()
