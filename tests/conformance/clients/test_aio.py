"""The same with tritonclient's asyncio clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException

from tests.conformance.clients.asking import A, B, address, check_simple, pair, texts
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e]
AIO: dict[str, Any] = {"http": http_aio, "grpc": grpc_aio}
both = pytest.mark.parametrize("transport", ["http", "grpc"])


@both
async def test_health_and_metadata(triton_models: Running, transport: str) -> None:
    form = {"as_json": True} if transport == "grpc" else {}
    async with AIO[transport].InferenceServerClient(address(triton_models, transport)) as asking:
        assert await asking.is_server_live()
        assert await asking.is_server_ready()
        assert await asking.is_model_ready("simple")
        server = await asking.get_server_metadata(**form)
        config = await asking.get_model_config("simple", **form)
        with pytest.raises(InferenceServerException, match="Request for unknown model"):
            await asking.get_model_metadata("wrong_model_name")

    assert server["name"] == "triton"
    assert int(config.get("config", config)["max_batch_size"]) == 8


@both
@pytest.mark.slice
async def test_many_at_once(triton_models: Running, transport: str) -> None:
    module = AIO[transport]
    async with module.InferenceServerClient(address(triton_models, transport)) as asking:
        answers = await asyncio.gather(
            *(asking.infer("simple", pair(module), request_id=str(i)) for i in range(32))
        )

    for answer in answers:
        check_simple(answer)


@both
async def test_text(triton_models: Running, transport: str) -> None:
    module = AIO[transport]
    async with module.InferenceServerClient(address(triton_models, transport)) as asking:
        result = await asking.infer("simple_string", pair(module, texts(A), texts(B), "BYTES"))

    assert [int(each) for each in result.as_numpy("OUTPUT1").flat] == (A - B).flatten().tolist()


@both
async def test_errors_have_the_protocols_text(triton_models: Running, transport: str) -> None:
    module = AIO[transport]
    async with module.InferenceServerClient(address(triton_models, transport)) as asking:
        with pytest.raises(InferenceServerException) as caught:
            await asking.infer("wrong_model_name", pair(module))
        with pytest.raises(InferenceServerException, match="INPUT1"):
            await asking.infer("simple", pair(module)[:1])

    assert caught.value.message().startswith("Request for unknown model")


async def test_http_compressed(triton_models: Running) -> None:
    async with http_aio.InferenceServerClient(triton_models.http_address) as asking:
        for algorithm in ("gzip", "deflate"):
            answer = await asking.infer(
                "simple",
                pair(http_aio),
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            check_simple(answer)


async def test_grpc_stream(triton_models: Running) -> None:
    async def asked() -> AsyncIterator[dict[str, Any]]:
        for number in range(8):
            inputs = pair(grpc_aio, A + np.int32(number))
            yield {"model_name": "simple", "inputs": inputs, "request_id": str(number)}

    seen = []
    async with grpc_aio.InferenceServerClient(triton_models.grpc) as asking:
        async for result, error in asking.stream_infer(asked()):
            assert error is None
            seen.append((result.get_response().id, int(result.as_numpy("OUTPUT0")[0, 0])))

    assert seen == [(str(number), number - 1) for number in range(8)]
