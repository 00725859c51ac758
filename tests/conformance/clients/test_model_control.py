"""What Triton's model control examples do. They leave `simple` as they found it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException

from tests.conformance.clients.asking import MODULES, address, check_simple, client, need, pair
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e]
both = pytest.mark.parametrize("transport", ["http", "grpc"])
# As the examples send it: no JSON at all.
BROKEN = '"parameters": {"config": {{"max_batch_size": "16"}}}'


@pytest.fixture
def controlled(triton_models: Running) -> Iterator[Running]:
    need(triton_models, "model_repository")
    yield triton_models
    with client(triton_models, "http") as asking:
        asking.load_model("simple")


def max_batch_size(config: Any) -> int:
    return int(
        config["max_batch_size"] if isinstance(config, dict) else config.config.max_batch_size
    )


@both
def test_a_model_is_loaded_changed_and_unloaded(controlled: Running, transport: str) -> None:
    module = MODULES[transport]
    with client(controlled, transport) as asking:
        asking.load_model("simple")
        assert asking.is_model_ready("simple")
        with pytest.raises(InferenceServerException, match="failed to load"):
            asking.load_model("simple", config=BROKEN)
        asking.load_model("simple", config='{"max_batch_size":"16"}')
        assert max_batch_size(asking.get_model_config("simple")) == 16
        check_simple(asking.infer("simple", pair(module)))
        asking.unload_model("simple")
        assert not asking.is_model_ready("simple")
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'simple'"):
            asking.infer("simple", pair(module))
        with pytest.raises(InferenceServerException, match="failed to load"):
            asking.load_model("wrong_model_name")
        asking.load_model("simple")
        assert max_batch_size(asking.get_model_config("simple")) == 8
        check_simple(asking.infer("simple", pair(module)))


@both
def test_a_file_with_a_name_too_long_is_refused_and_the_server_lives(
    controlled: Running, transport: str
) -> None:
    with client(controlled, transport) as asking:
        with pytest.raises(InferenceServerException):
            asking.load_model("simple", config="{}", files={"file:" + "A" * 256: b"a"})
        assert asking.is_server_live()


@both
async def test_the_same_with_the_asyncio_clients(controlled: Running, transport: str) -> None:
    module: Any = http_aio if transport == "http" else grpc_aio
    async with module.InferenceServerClient(address(controlled, transport)) as asking:
        await asking.unload_model("simple")
        assert not await asking.is_model_ready("simple")
        await asking.load_model("simple")
        assert await asking.is_model_ready("simple")
        check_simple(await asking.infer("simple", pair(module)))
