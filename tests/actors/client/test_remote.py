"""The SDK against a door over real sockets: calls, errors, retries, compression, both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from actors.listeners.http_messages import HttpReply
from cluster.client import AsyncClient, Client
from cluster.errors import (
    CapacityError,
    ConfigError,
    EngineFailed,
    InvalidRequest,
    ModelNotFound,
    NoReadyReplica,
    Overloaded,
    Unsupported,
)
from tests.actors.client.doors import grpc_address, http_address, http_door
from tests.actors.listeners.doors import numbers

T = TypeVar("T")
A, B = numbers(3), np.ones((3, 16), np.int32)


def busy(after: str = "0") -> HttpReply:
    return HttpReply(
        status=503, chunks=(b'{"error": "no room"}',), headers=(("Retry-After", after),)
    )


async def apart(work: Callable[[], T]) -> T:
    """In a thread, so that the door's loop goes on."""
    return await asyncio.to_thread(work)


async def test_predict_gives_what_the_server_computes(tmp_path: Path) -> None:
    async with http_door(tmp_path) as (_, url):

        def work() -> None:
            with Client(url) as client, client.load_model("simple") as model:
                assert model.is_remote
                assert model.name == "simple"
                answer = model.predict(INPUT0=A, INPUT1=B)
                assert np.array_equal(answer["OUTPUT0"], A + B)
                assert np.array_equal(answer["OUTPUT1"], A - B)
                assert set(model.predict(INPUT0=A, INPUT1=B, outputs=["OUTPUT1"])) == {"OUTPUT1"}

        await apart(work)


async def test_texts_travel_both_ways_with_their_zeros(tmp_path: Path) -> None:
    async with http_door(tmp_path) as (_, url):

        def work() -> None:
            with Client(url) as client, client.load_model("shout") as model:
                assert model.predict("ä a")["text_output"].tolist() == [["ä A".encode()]]
                answer = model.predict([[b"x\x00"], ["y"]])
                assert answer["text_output"].tolist() == [[b"X\x00"], [b"Y"]]

        await apart(work)


async def test_text_is_generated_by_the_servers_generate_stream(tmp_path: Path) -> None:
    async with http_door(tmp_path) as (door, url):

        def work() -> None:
            with Client(url) as client:
                shout = client.load_model("shout")
                assert shout.generate("hello", max_length=7, temperature=0.5) == "HELLO"
                with pytest.raises(Unsupported, match="embedded only"):
                    shout.generate("hello", use_cache=False)
                with pytest.raises(InvalidRequest, match="text_input"):
                    shout.generate([1, 2])
                with pytest.raises(Unsupported, match="generates nothing"):
                    client.load_model("simple_identity").generate("hello")

        await apart(work)
        (asked,) = (each for each in door.seen if b"hello" in each.body and b"0.5" in each.body)
        assert b'"max_tokens":7' in asked.body


async def test_many_inputs_travel_in_batches(tmp_path: Path) -> None:
    async with http_door(tmp_path) as (door, url):

        def work() -> None:
            with Client(url) as client, client.load_model("simple") as model:
                items = [{"INPUT0": A[:1] + i, "INPUT1": B[:1]} for i in range(10)]
                found = model.batch_predict(items, batch_size=4)
                assert [int(each["OUTPUT0"][0, 0]) for each in found] == list(range(1, 11))

        await apart(work)
        assert sum(request.path.endswith("/infer") for request in door.seen) == 3


async def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    async with http_door(tmp_path) as (door, url):
        door.refusals += [busy(), busy()]

        def work() -> None:
            with Client(url, retries=2) as client, client.load_model("simple") as model:
                assert np.array_equal(model.predict(INPUT0=A, INPUT1=B)["OUTPUT0"], A + B)

        await apart(work)
        assert not door.refusals


async def test_a_server_that_stays_busy_is_told_in_its_own_words(tmp_path: Path) -> None:
    async with http_door(tmp_path) as (door, url):
        door.refusals += [busy() for _ in range(5)]

        def work() -> None:
            with Client(url, retries=1) as client, client.load_model("simple") as model:
                with pytest.raises(Overloaded, match="no room") as raised:
                    model.predict(INPUT0=A, INPUT1=B)
                assert raised.value.retry_after_s == 0

        await apart(work)
        assert len(door.refusals) == 3


async def test_a_failed_model_is_not_asked_again(tmp_path: Path) -> None:
    async with http_door(tmp_path) as (door, url):
        door.refusals += [HttpReply(status=500, chunks=(b'{"error": "broke"}',))] * 2

        def work() -> None:
            with Client(url, retries=3) as client:
                model = client.load_model("simple")
                with pytest.raises(EngineFailed, match="broke"):
                    model.predict(INPUT0=A, INPUT1=B)

        await apart(work)
        assert len(door.refusals) == 1


async def test_errors_of_the_caller_have_the_servers_words(tmp_path: Path) -> None:
    async with http_door(tmp_path) as (_, url):

        def work() -> None:
            with Client(url) as client:
                with pytest.raises(ModelNotFound, match="nobody"):
                    client.load_model("nobody")
                with client.load_model("simple") as model:
                    with pytest.raises(InvalidRequest, match="INPUT1"):
                        model.predict({"INPUT0": A})
                    with pytest.raises(InvalidRequest, match="OUTPUT9"):
                        model.predict(INPUT0=A, INPUT1=B, outputs=["OUTPUT9"])

        await apart(work)


def test_a_server_that_is_not_there_is_told_by_its_address() -> None:
    with (
        Client("http://127.0.0.1:9", retries=1, timeout_s=2) as client,
        pytest.raises(NoReadyReplica, match=r"http://127\.0\.0\.1:9"),
    ):
        client.load_model("simple")


async def test_bodies_are_compressed_both_ways(tmp_path: Path) -> None:
    async with http_door(tmp_path) as (door, url):
        rows, ones = numbers(8), np.ones((8, 16), np.int32)

        def work() -> None:
            for coding in ("gzip", "deflate"):
                with Client(url, compression=coding) as client:  # type: ignore[arg-type]
                    model = client.load_model("simple")
                    answer = model.predict(INPUT0=rows, INPUT1=ones)
                    assert np.array_equal(answer["OUTPUT0"], rows + ones)

        await apart(work)
        asked = [request for request in door.seen if request.path.endswith("/infer")]
        assert [each.headers["content-encoding"] for each in asked] == ["gzip", "deflate"]


async def test_the_key_goes_with_every_request_and_is_not_shown(tmp_path: Path) -> None:
    async with http_door(tmp_path) as (door, url):

        def work() -> None:
            with Client(url, api_key="sesame", headers={"x-squadron-user": "anna"}) as client:
                client.load_model("simple").predict(INPUT0=A, INPUT1=B)
                assert "sesame" not in repr(client.settings)

        await apart(work)
        assert {request.headers["authorization"] for request in door.seen} == {"Bearer sesame"}
        assert {request.headers["x-squadron-user"] for request in door.seen} == {"anna"}


@pytest.mark.parametrize("address", [http_address, grpc_address])
async def test_a_server_tells_whether_its_variants_were_optimised(
    tmp_path: Path, address: Callable[[Path], AbstractAsyncContextManager[str]]
) -> None:
    async with address(tmp_path) as url:

        def work() -> list[object]:
            found: list[object] = []
            with Client(url) as client:
                for name in ("simple", "shout", "simple_identity"):
                    try:
                        found.append(client.load_model(name).is_optimized())
                    except Unsupported as error:
                        found.append(error.message)
            return found

        said = await apart(work)

    assert said[:2] == [False, True]
    assert str(said[2]).startswith("the server does not say how simple_identity was made")


async def test_what_a_server_does_not_do_says_what_to_do_instead(tmp_path: Path) -> None:
    async with http_door(tmp_path) as (_, url):

        def work() -> None:
            from cluster.client import InferenceProfiler

            with Client(url) as client:
                model = client.load_model("simple")
                with pytest.raises(Unsupported, match="repository_control: explicit") as caught:
                    client.shard_model("simple", 2)
                told = "below variants.simple: placement: {strategy: layer, shards: 2}"
                assert caught.value.message.endswith(told)
                # No cluster is behind this door.
                with pytest.raises(CapacityError, match="no cluster to run jobs on"):
                    InferenceProfiler(model).stop()
                with pytest.raises(CapacityError, match="no cluster to run jobs on"):
                    client.optimize(model)
                with pytest.raises(Unsupported, match="Client\\(\\) without a url"):
                    client.load_model(tmp_path)
                for setting, said in (
                    (model.enable_gpu_acceleration(), "below variants.simple: device: cuda"),
                    (model.enable_efficient_attention(), "client.optimize"),
                    (model.enable_kv_cache(), "generates nothing"),
                    *(
                        (each, "max_memory_mb: 64}")
                        for each in model.enable_memory_optimization(True, False, 64).values()
                    ),
                ):
                    assert not setting
                    assert said in setting.says

        await apart(work)


async def test_the_server_says_what_it_has_and_whether_it_is_ready(tmp_path: Path) -> None:
    async with http_door(tmp_path) as (_, url):

        def work() -> None:
            with Client(url) as client:
                assert client.is_ready()
                assert client.list_models() == ["shout", "simple", "simple_identity"]

        await apart(work)
    with Client(url, retries=0) as client:
        assert not client.is_ready()


async def test_a_closed_model_and_a_closed_client_refuse(tmp_path: Path) -> None:
    async with http_door(tmp_path) as (_, url):

        def work() -> None:
            client = Client(url)
            model = client.load_model("simple")
            client.close()
            with pytest.raises(EngineFailed, match="unloaded"):
                model.predict(INPUT0=A, INPUT1=B)
            with pytest.raises(ConfigError, match="closed"):
                client.load_model("simple")

        await apart(work)


async def test_asyncio_asks_without_threads_and_at_the_same_time(tmp_path: Path) -> None:
    async with http_door(tmp_path) as (door, url), AsyncClient(url, retries=2) as client:
        assert await client.is_ready()
        assert "simple" in await client.list_models()
        model = await client.load_model("simple")
        door.refusals.append(busy())

        answers = await asyncio.gather(*(model.predict(INPUT0=A + i, INPUT1=B) for i in range(8)))
        many = await model.batch_predict(
            [{"INPUT0": A[:1] + i, "INPUT1": B[:1]} for i in range(5)], batch_size=2
        )

        for index, answer in enumerate(answers):
            assert np.array_equal(answer["OUTPUT0"], A + index + B)
        assert [int(each["OUTPUT0"][0, 0]) for each in many] == [1, 2, 3, 4, 5]
        with pytest.raises(InvalidRequest, match="INPUT1"):
            await model.predict({"INPUT0": A})
        await model.unload()
        with pytest.raises(EngineFailed, match="unloaded"):
            await model.predict(INPUT0=A, INPUT1=B)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "localhost:8000"}, "http://HOST:PORT"),
        ({"url": "http://h", "compression": "zstd"}, "gzip, deflate"),
        ({"url": "http://h", "retries": -1}, "0 and more"),
        ({"url": "http://h", "timeout_s": 0}, "above 0"),
        ({"api_key": "k"}, "for a server"),
        ({"threads": 0}, "1 to 256"),
    ],
)
def test_settings_that_cannot_be_are_told_at_once(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Client(**settings)  # type: ignore[arg-type]
