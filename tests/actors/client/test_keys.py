"""The SDK against doors that ask for a key, over HTTP and gRPC."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from cluster.client import AsyncClient, Client
from cluster.errors import Forbidden, Unauthorized
from tests.actors.access.keyed import key, listening
from tests.actors.listeners.doors import numbers

A, B = numbers(2), np.ones((2, 16), np.int32)


@pytest.mark.parametrize("transport", ["http", "grpc"])
async def test_the_key_opens_its_models_and_no_others(tmp_path: Path, transport: str) -> None:
    async with listening(tmp_path) as door:
        url = door.http if transport == "http" else f"grpc://{door.grpc}"

        def work() -> None:
            with Client(url, api_key=key("own")) as client:
                model = client.load_model("simple")
                assert np.array_equal(model.predict(INPUT0=A, INPUT1=B)["OUTPUT0"], A + B)
                with pytest.raises(Forbidden):
                    client.load_model("shout")
            for wrong in (None, "sqn_nobody_nothing"):
                with Client(url, api_key=wrong) as client, pytest.raises(Unauthorized):
                    client.load_model("simple")

        await asyncio.to_thread(work)


async def test_asyncio_sends_the_key_too(tmp_path: Path) -> None:
    async with (
        listening(tmp_path) as door,
        AsyncClient(door.http, api_key=key("own")) as client,
    ):
        model = await client.load_model("simple")

        answer = await model.predict(INPUT0=A, INPUT1=B)

    assert np.array_equal(answer["OUTPUT0"], A + B)


async def test_the_pieces_of_a_language_model_come_together(tmp_path: Path) -> None:
    async with listening(tmp_path) as door:

        def work() -> None:
            with Client(door.http, api_key=key("own")) as client:
                assert client.load_model("lm").generate("once", max_length=2) == "ab"

        await asyncio.to_thread(work)
