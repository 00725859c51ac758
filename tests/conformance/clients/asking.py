"""What every client test needs: the two client modules, inputs for the example models, skips."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from tests.e2e.running import Running

MODULES = {"http": http_client, "grpc": grpc_client}
A: npt.NDArray[np.int32] = np.arange(16, dtype=np.int32)[None]
B: npt.NDArray[np.int32] = np.full((1, 16), -1, dtype=np.int32)


def address(server: Running, transport: str) -> str:
    return server.http_address if transport == "http" else server.grpc


def client(server: Running, transport: str, **options: Any) -> Any:
    return MODULES[transport].InferenceServerClient(address(server, transport), **options)


def pair(module: Any, a: Any = A, b: Any = B, datatype: str = "INT32", **how: Any) -> list[Any]:
    """INPUT0 and INPUT1 of the `simple` models."""
    inputs = []
    for name, array in (("INPUT0", a), ("INPUT1", b)):
        made = module.InferInput(name, list(array.shape), datatype)
        made.set_data_from_numpy(array, **how)
        inputs.append(made)
    return inputs


def texts(numbers: Any) -> Any:
    flat = [str(number).encode() for number in numbers.flat]
    return np.array(flat, dtype=object).reshape(numbers.shape)


def check_simple(result: Any, a: Any = A, b: Any = B) -> None:
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), a + b)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), a - b)


def extensions(server: Running) -> list[str]:
    with http_client.InferenceServerClient(server.http_address) as asking:
        return list(asking.get_server_metadata()["extensions"])


def need(server: Running, extension: str) -> None:
    if extension not in extensions(server):
        pytest.skip(f"this Squadron does not offer the extension {extension!r}")
