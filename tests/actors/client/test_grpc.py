"""The SDK over gRPC: the same calls and the same errors as over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from cluster.client import AsyncClient, Client
from cluster.errors import (
    ConfigError,
    EngineFailed,
    InvalidRequest,
    ModelNotFound,
    NoReadyReplica,
)
from tests.actors.client.doors import grpc_address
from tests.actors.listeners.doors import numbers

A, B = numbers(3), np.ones((3, 16), np.int32)


async def test_grpc_answers_as_http_does(tmp_path: Path) -> None:
    async with grpc_address(tmp_path) as url:

        def work() -> None:
            with Client(url, compression="gzip", api_key="k") as client:
                assert client.is_ready()
                assert client.list_models() == ["shout", "simple", "simple_identity"]
                model = client.load_model("simple")
                answer = model.predict(INPUT0=A, INPUT1=B)
                assert np.array_equal(answer["OUTPUT0"], A + B)
                answer["OUTPUT0"][0, 0] = 7
                assert set(model.predict(INPUT0=A, INPUT1=B, outputs=["OUTPUT1"])) == {"OUTPUT1"}
                assert [spec.name for spec in model.signature.inputs] == ["INPUT0", "INPUT1"]
                shout = client.load_model("shout")
                assert shout.predict([[b"a\x00"], ["b"]])["text_output"].tolist() == [
                    [b"A\x00"], [b"B"],
                ]  # fmt: skip
                many = [{"INPUT0": A[:1] + i, "INPUT1": B[:1]} for i in range(5)]
                found = model.batch_predict(many, batch_size=2)
                assert [int(each["OUTPUT0"][0, 0]) for each in found] == [1, 2, 3, 4, 5]

        await asyncio.to_thread(work)


async def test_errors_over_grpc_are_of_the_same_classes(tmp_path: Path) -> None:
    async with grpc_address(tmp_path) as url:

        def work() -> None:
            with Client(url) as client:
                with pytest.raises(ModelNotFound, match="nobody"):
                    client.load_model("nobody")
                model = client.load_model("simple")
                with pytest.raises(InvalidRequest, match="INPUT1"):
                    model.predict({"INPUT0": A})
                model.close()
                with pytest.raises(EngineFailed, match="unloaded"):
                    model.predict(INPUT0=A, INPUT1=B)

        await asyncio.to_thread(work)
    with Client("grpc://127.0.0.1:9", retries=0, timeout_s=5) as client:
        assert not client.is_ready()
        with pytest.raises(NoReadyReplica):
            client.load_model("simple")


async def test_asyncio_over_grpc_waits_in_threads(tmp_path: Path) -> None:
    async with grpc_address(tmp_path) as url, AsyncClient(url) as client:
        model = await client.load_model("simple")

        answers = await asyncio.gather(*(model.predict(INPUT0=A + i, INPUT1=B) for i in range(4)))

    for index, answer in enumerate(answers):
        assert np.array_equal(answer["OUTPUT0"], A + index + B)


def test_shared_memory_over_grpc_is_refused() -> None:
    with pytest.raises(ConfigError, match="HTTP only"):
        Client("grpc://h:1", shared_memory=True)
