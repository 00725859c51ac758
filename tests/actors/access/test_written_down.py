"""Whose key it was: in the access log, also of calls that are refused, and in the audit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from actors.logs.set_up import ACCESS
from cluster.protocols.grpc_schema import SERVICE, message_class
from tests.actors.access.keyed import ENTRIES, YESTERDAY, bearer, channel_to, entry, key, listening
from tests.actors.access.test_matrix import infer_request
from tests.actors.listeners.doors import simple_body

INFER = "/v2/models/simple/infer"
ON = {"access_log": True}
LATE = entry("late", "infer", expires=YESTERDAY)
ONCE = entry("once", "infer", requests_per_s=0.001)
ID = {name: entry(name, "infer").id for name in ("own", "other", "late", "once")}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level(logging.INFO, ACCESS)

    def found() -> list[dict[str, Any]]:
        return [record.squadron for record in caplog.records if record.name == ACCESS]  # type: ignore[attr-defined]

    return found


async def test_every_line_names_the_key_that_was_proved_and_no_other(
    tmp_path: Path, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    async with (
        listening(tmp_path, (*ENTRIES, LATE, ONCE), logging=ON) as door,
        httpx.AsyncClient(base_url=door.http, headers={"x-squadron-tenant": "made-up"}) as client,
    ):
        for name in ("own", "other", "late", "once", "once", "nobody's"):
            await client.post(INFER, content=simple_body(), headers=bearer(name))
        # Who knows an id, which is no secret, is not written down as its owner.
        guessed = f"{key('own')[:20]}{'0' * 43}"
        await client.post(
            INFER, content=simple_body(), headers={"authorization": f"Bearer {guessed}"}
        )
        await client.post(INFER, content=simple_body())
        await client.post(
            "/v1/completions", json={"model": "lm", "prompt": "a"}, headers=bearer("other")
        )

    assert [(each["status"], each["key"], each["tenant"]) for each in lines()] == [
        (200, ID["own"], "own"),
        (403, ID["other"], "other"),
        (401, ID["late"], "late"),
        (200, ID["once"], "once"),
        (429, ID["once"], "once"),
        (401, "", ""),
        (401, "", ""),
        (401, "", ""),
        (403, ID["other"], "other"),
    ]
    assert lines()[-1]["model"] == "lm"
    assert "secret-of" not in str(lines())


async def test_calls_over_grpc_name_the_key_and_the_model_that_was_refused(
    tmp_path: Path, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    async with (
        listening(tmp_path, (*ENTRIES, LATE), logging=ON) as door,
        channel_to(door.grpc) as channel,
    ):
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        await infer(infer_request(), metadata=tuple(bearer("own").items()))
        for name in ("other", "late"):
            with pytest.raises(grpc.aio.AioRpcError):
                await infer(infer_request(), metadata=tuple(bearer(name).items()))
        call = stream(iter([infer_request()]), metadata=tuple(bearer("other").items()))
        async for _ in call:
            pass

    assert [(each["status"], each["key"], each["model"]) for each in lines()] == [
        ("OK", ID["own"], "simple"),
        ("PERMISSION_DENIED", ID["other"], "simple"),
        ("UNAUTHENTICATED", ID["late"], ""),
        ("OK", ID["other"], "simple"),
    ]


async def test_without_keys_a_line_has_no_key_and_the_tenant_that_the_caller_says(
    tmp_path: Path, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    async with (
        listening(tmp_path, (), logging=ON) as door,
        httpx.AsyncClient(base_url=door.http) as client,
    ):
        await client.post(INFER, content=simple_body(), headers={"x-squadron-tenant": "shop"})

    assert [(each["key"], each["tenant"]) for each in lines()] == [("", "shop")]


async def test_the_audit_of_a_call_over_grpc_says_what_it_is_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load = message_class("inference.RepositoryModelLoadRequest")
    async with listening(tmp_path) as door, channel_to(door.grpc) as channel:
        call = channel.unary_unary(f"/{SERVICE}/RepositoryModelLoad")
        for content in (load(model_name="simple").SerializeToString(), b"\xff"):
            with pytest.raises(grpc.aio.AioRpcError):
                await call(content, metadata=tuple(bearer("admin").items()))

    told = [each.getMessage() for each in caplog.records if each.name == "squadron.audit"]
    who = f"by key {entry('admin', 'admin').id} ('admin')"
    assert told == [f"'RepositoryModelLoad simple' {who}", f"'RepositoryModelLoad' {who}"]
