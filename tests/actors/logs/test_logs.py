"""Lines of the access log for requests over real HTTP and gRPC; lines of a process as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton

from actors.logs.line import LINE, Line
from actors.logs.set_up import ACCESS, AccessLines, JsonLines
from tests.actors.tracing.collector import grpc_collector
from tests.actors.tracing.doors import Traced, body, traced_door

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-00"
SECRET = "sqn_1_never-to-be-seen"

ON = {"access_log": True}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level(logging.INFO, ACCESS)

    def found() -> list[dict[str, Any]]:
        return [record.squadron for record in caplog.records if record.name == ACCESS]  # type: ignore[attr-defined]

    return found


async def post(door: Traced, path: str, content: bytes, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=door.http) as client:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.post(path, content=content, headers=named)


async def test_a_request_is_one_line_without_its_body_and_its_key(
    tmp_path: Path, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    sent = body(id="mine")
    async with traced_door(tmp_path, logging=ON) as door:
        reply = await post(
            door,
            "/v2/models/v/infer",
            sent,
            x_squadron_tenant="shop",
            traceparent=PARENT,
            authorization=f"Bearer {SECRET}",
        )

    (line,) = lines()
    assert line.pop("ms") > 0
    assert line == {
        "method": "POST",
        "path": "/v2/models/v/infer",
        "model": "v",
        "variant": "v",
        "status": 200,
        "bytes_in": len(sent),
        "bytes_out": len(reply.content),
        "request_id": "mine",
        "trace_id": TRACE,
        "tenant": "shop",
        "key": "",
    }


async def test_what_is_refused_or_unknown_has_a_line_too(
    tmp_path: Path, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    async with traced_door(tmp_path, logging=ON) as door:
        await post(door, "/v2/models/nobody/infer", body())
        await post(door, "/v2/models/v/infer", b"{")
        await post(door, "/v2/models/both/infer", body())

    assert [(line["status"], line["model"], line["variant"]) for line in lines()] == [
        (404, "", ""),
        (400, "", ""),
        (200, "both", "both"),
    ]


async def test_a_caller_that_leaves_is_499(
    tmp_path: Path, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    async with traced_door(tmp_path, logging=ON) as door:
        door.engine.gate.clear()
        asking = asyncio.create_task(post(door, "/v2/models/v/infer", body()))
        assert await asyncio.to_thread(door.engine.began.wait, 20)
        asking.cancel()
        async with asyncio.timeout(10):
            while not lines():  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.01)

    assert [line["status"] for line in lines()] == [499]


async def test_calls_over_grpc_have_their_codes(
    tmp_path: Path, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    def ask(address: str) -> None:
        given = triton.InferInput("x", [1, 4], "FP32")
        given.set_data_from_numpy(np.ones((1, 4), np.float32))
        with triton.InferenceServerClient(address) as client:
            client.infer("v", [given], request_id="mine", headers={"x-squadron-tenant": "shop"})
            with pytest.raises(triton.InferenceServerException):
                client.infer("nobody", [given])

    async with traced_door(tmp_path, logging=ON) as door:
        await asyncio.to_thread(ask, door.grpc)

    good, bad = lines()
    assert (good["method"], good["path"], good["status"]) == ("gRPC", "ModelInfer", "OK")
    assert (good["model"], good["variant"], good["tenant"]) == ("v", "v", "shop")
    assert good["request_id"] == "mine"
    assert good["bytes_in"] > 0
    assert good["bytes_out"] > 0
    assert (bad["status"], bad["bytes_out"]) == ("NOT_FOUND", 0)


async def test_a_sampled_request_has_its_traces_id(
    tmp_path: Path, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    with grpc_collector() as collector:
        tracing = {"endpoint": collector.endpoint, "sample_ratio": 1, "export_every_s": 0.05}
        async with traced_door(tmp_path, logging=ON, tracing=tracing) as door:
            await post(door, "/v2/models/v/infer", body())
            (root,) = await asyncio.to_thread(collector.named, "infer")

    assert [line["trace_id"] for line in lines()] == [root.trace]


async def test_without_an_access_log_there_is_no_line_and_nothing_on_the_way(
    tmp_path: Path, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    async with traced_door(tmp_path) as door:
        await post(door, "/v2/models/v/infer", body())

    assert lines() == []
    assert door.front.follows is None


def test_what_callers_chose_cannot_end_a_line() -> None:
    line = Line("POST", "/v2", request_id="a\nforged", tenant='"', trace_parent="x", size=1)
    record = logging.makeLogRecord({"squadron": line.fields(), "msg": "m"})

    for formatter in (AccessLines(), JsonLines({})):
        assert "\n" not in formatter.format(record)
    assert 'request_id="a\\nforged"' in AccessLines().format(record)


def test_a_line_within_a_request_names_it() -> None:
    token = LINE.set(Line("POST", "/", request_id="r", tenant="", trace_parent=PARENT, size=0))
    try:
        line = json.loads(JsonLines({"role": "door"}).format(logging.makeLogRecord({"msg": "m"})))
    finally:
        LINE.reset(token)

    assert (line["request_id"], line["trace_id"], line["role"]) == ("r", TRACE, "door")


def test_every_line_of_a_process_is_an_object_also_errors_and_warnings() -> None:
    code = """
import logging, warnings
from actors.logs.set_up import set_up_logs
from cluster.config.observability.logs import LogsConfig
logging.getLogger("ray.serve").addHandler(logging.StreamHandler())
logging.getLogger("ray.serve").propagate = False
for _ in range(2):
    set_up_logs(LogsConfig(format="json", access_log=True), role="replica", variant="v")
logging.getLogger("squadron.gateway").info("it %s", "stands")
logging.getLogger("ray.serve").warning("of Serve")
logging.getLogger("squadron.access_log").info("x", extra={"squadron": {"status": 200}})
warnings.warn("careful")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("squadron.http").exception("failed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, again, *found = [json.loads(line) for line in done.stderr.splitlines()]

    assert first["logger"] == again["logger"] == "squadron.logs"
    assert [(line["level"], line["logger"]) for line in found] == [
        ("INFO", "squadron.gateway"),
        ("WARNING", "ray.serve"),
        ("INFO", "squadron.access_log"),
        ("WARNING", "py.warnings"),
        ("ERROR", "squadron.http"),
    ]
    assert {(line["role"], line["variant"]) for line in found} == {("replica", "v")}
    assert found[0]["message"] == "it stands"
    assert found[2]["status"] == 200
    assert "ZeroDivisionError" in found[4]["error"]


def test_decisions_are_lines_of_text_until_a_door_asks_for_json_and_none_comes_twice() -> None:
    """Python alone writes nothing below a warning."""
    code = """
import logging
from actors.logs.set_up import set_up_logs, write_decisions
from cluster.config.observability.logs import LogsConfig
decided = logging.getLogger("squadron.autoscaling")
write_decisions()
set_up_logs(LogsConfig(), role="autoscaler")
decided.info("look %s", "{}")
set_up_logs(LogsConfig(format="json"), role="autoscaler")
decided.info("look %s", "{}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    text, _, found = done.stderr.splitlines()

    assert text.endswith(" INFO squadron.autoscaling: look {}")
    assert (json.loads(found)["message"], json.loads(found)["role"]) == ("look {}", "autoscaler")
