"""kserve's own clients, in kserve's own environment: `kserve_client.py HTTP_URL GRPC_HOST:PORT`.

Prints one line a check; exit status 1 at the first that fails. One process cannot import its
protobuf stubs and tritonclient's.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import Any

import numpy as np
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    InferResponse,
    RESTConfig,
)

A = np.arange(16, dtype=np.int32)[None]
B = np.full((1, 16), 3, dtype=np.int32)


def request(
    model: str, a: Any = A, b: Any = B, datatype: str = "INT32", **how: Any
) -> InferRequest:
    inputs = []
    for name, array in (("INPUT0", a), ("INPUT1", b)):
        given = InferInput(name=name, shape=list(array.shape), datatype=datatype)
        given.set_data_from_numpy(array, **how)
        inputs.append(given)
    return InferRequest(model_name=model, infer_inputs=inputs, request_id="mine")


def check(what: str, response: InferResponse) -> None:
    for name, expected in (("OUTPUT0", A + B), ("OUTPUT1", A - B)):
        output = next(each for each in response.outputs if each.name == name)
        found = output.as_numpy().reshape(1, 16)
        assert found.astype(np.int64).tolist() == expected.tolist(), (what, name, found)
    assert response.id == "mine", what
    print(f"passed: {what}", flush=True)


def texts(numbers: Any) -> Any:
    return np.array([str(each).encode() for each in numbers.flat], object).reshape(1, 16)


async def check_refused(transport: str, answer: Awaitable[Any]) -> None:
    said = (await asyncio.gather(answer, return_exceptions=True))[0]
    assert "404" in str(said) or "unknown model" in str(said), said
    print(f"passed: {transport} unknown model", flush=True)


async def over_http(url: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=30, retries=0))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "simple")
    assert not await client.is_model_ready(url, "nothing")
    print("passed: REST health", flush=True)
    for name, binary in (("JSON", False), ("binary", True)):
        asked = request("simple", binary_data=binary)
        check(f"REST {name}", await client.infer(url, asked, model_name="simple"))
    int8 = request("simple_int8", A.astype(np.int8), B.astype(np.int8), "INT8", binary_data=True)
    check("REST INT8", await client.infer(url, int8, model_name="simple_int8"))
    asked = request("simple_string", texts(A), texts(B), "BYTES", binary_data=True)
    check("REST text", await client.infer(url, asked, model_name="simple_string"))
    asked = request("nothing", binary_data=True)
    await check_refused("REST", client.infer(url, asked, model_name="nothing"))


async def over_grpc(address: str) -> None:
    client = InferenceGRPCClient(address, timeout=30)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("simple")
    print("passed: gRPC health", flush=True)
    for name, binary in (("typed contents", False), ("raw contents", True)):
        check(f"gRPC {name}", await client.infer(request("simple", binary_data=binary)))
    asked = request("simple_string", texts(A), texts(B), "BYTES", binary_data=True)
    check("gRPC text", await client.infer(asked))
    await check_refused("gRPC", client.infer(request("nothing", binary_data=True)))
    await client.close()


async def main(url: str, address: str) -> None:
    await over_http(url)
    await over_grpc(address)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
