"""The routes without a socket: a request object in, a reply out."""

from __future__ import annotations

import logging
from pathlib import Path

import orjson
import pytest

from actors.listeners.http_messages import HttpRequest
from cluster.errors import EngineFailed
from tests.actors.listeners.doors import SUM, body_of, make_door, simple_body


async def test_statistics_count_requests_rows_and_nanoseconds(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    for _ in range(3):
        await door.json("POST", "/v2/models/simple/infer", simple_body())
    await door.refusal("POST", "/v2/models/simple/infer", b"{}")
    await door.refusal(
        "POST", "/v2/models/simple/infer", simple_body(outputs=[{"name": "nothing"}])
    )

    (found,) = (await door.json("GET", "/v2/models/simple/stats"))["model_stats"]

    stats = found["inference_stats"]
    assert (found["name"], found["version"], found["inference_count"]) == ("simple", "1", 3)
    assert (stats["success"]["count"], stats["fail"]["count"]) == (3, 1)
    assert stats["success"]["ns"] > 1000
    assert found["last_inference"] > 1_700_000_000_000
    assert set(stats) == {
        "success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
        "cache_hit", "cache_miss",
    }  # fmt: skip


async def test_statistics_of_all_models_list_each_once(tmp_path: Path) -> None:
    door = make_door(tmp_path)

    found = await door.json("GET", "/v2/models/stats")
    one = await door.json("GET", "/v2/models/simple/versions/1/stats")

    assert [m["name"] for m in found["model_stats"]] == ["shout", "simple", "simple_identity"]
    assert [m["name"] for m in one["model_stats"]] == ["simple"]
    assert (await door.refusal("GET", "/v2/models/nothing/stats"))[0] == 404


async def test_an_infer_request_is_answered(tmp_path: Path) -> None:
    door = make_door(tmp_path)

    answer = await door.json("POST", "/v2/models/simple/versions/1/infer", simple_body(id="7"))

    assert answer["id"] == "7"
    assert answer["outputs"][0]["data"] == SUM


async def test_wrong_paths_and_methods_have_the_protocols_shape(tmp_path: Path) -> None:
    door = make_door(tmp_path)

    assert await door.refusal("GET", "/v2/nowhere") == (404, "Not Found")
    reply = await door.ask("DELETE", "/v2/models/simple/infer")
    assert (reply.status, dict(reply.headers)["Allow"]) == (405, "POST")
    assert orjson.loads(reply.chunks[0]) == {"error": "Method Not Allowed"}


async def test_the_servers_name_and_version_are_the_configurations(tmp_path: Path) -> None:
    door = make_door(tmp_path, name="triton", version="2.73.0")

    found = await door.json("GET", "/v2")

    assert (found["name"], found["version"]) == ("triton", "2.73.0")


async def test_the_probe_is_true_of_the_whole_process(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    found = [await door.ask("GET", "/-/healthz")]

    def stopped() -> None:
        raise EngineFailed("echo: the batching loop has ended")

    door.front.check_health = stopped
    found.append(await door.ask("GET", "/-/healthz"))
    door.front.is_draining = True
    found.append(await door.ask("GET", "/-/healthz"))

    assert [(reply.status, body_of(reply)) for reply in found] == [
        (200, b"success"),
        (503, b"unhealthy"),
        (503, b"draining"),
    ]


async def test_every_route_is_in_the_openapi_document(tmp_path: Path) -> None:
    door = make_door(tmp_path)

    document = await door.json("GET", "/openapi.json")

    described = {(m.upper(), path) for path, ms in document["paths"].items() for m in ms}
    assert described == {(o.method, o.path) for o in door.routes.table.operations()}
    assert ("POST", "/v2/models/{model}/versions/{version}/infer") in described
    ids = [op["operationId"] for ms in document["paths"].values() for op in ms.values()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("base_path", ["", "/lab"])
async def test_errors_have_the_shape_that_the_document_says(tmp_path: Path, base_path: str) -> None:
    door = make_door(tmp_path, base_path=base_path)
    paths = (await door.json("GET", f"{base_path}/openapi.json"))["paths"]

    told = {}
    for path in ("/tokenize", "/v2/rerank", "/v1/chat/completions", "/v2/models/simple/infer"):
        template = path.replace("simple", "{model}")
        said = paths[base_path + template]["post"]["responses"]["default"]
        told[path] = said["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        # Neither the body nor, the second time, the method is right.
        for method in ("POST", "DELETE"):
            request = HttpRequest(method=method, path=base_path + path, headers={}, body=b"{")
            error = orjson.loads(body_of(await door.routes.answer(request)))["error"]
            assert isinstance(error, dict) == (told[path] == "OpenAIError"), (method, path, error)

    assert [*told.values()] == ["OpenAIError", "OpenAIError", "OpenAIError", "Error"]


async def test_trace_settings_fall_back_from_the_model_to_the_server(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    of_all, of_model = "/v2/trace/setting", "/v2/models/simple/trace/setting"

    await door.json("POST", of_all, {"trace_rate": "5", "log_frequency": 7})
    changed = await door.json("POST", of_model, {"trace_rate": 9, "trace_level": ["TIMESTAMPS"]})

    assert changed == {
        "trace_file": "",
        "trace_level": ["TIMESTAMPS"],
        "trace_rate": "9",
        "trace_count": "-1",
        "log_frequency": "7",
        "trace_mode": "triton",
    }
    assert (await door.json("GET", of_all))["trace_rate"] == "5"
    cleared = await door.json("POST", of_model, {"trace_rate": None, "trace_level": None})
    assert (cleared["trace_rate"], cleared["trace_level"]) == ("5", ["OFF"])


async def test_wrong_trace_settings_are_refused(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    for change in ({"trace_rte": 1}, {"trace_level": "MUCH"}, {"trace_count": -2}, [1]):
        assert (await door.refusal("POST", "/v2/trace/setting", change))[0] == 400
    status, text = await door.refusal("POST", "/v2/trace/setting", {"trace_file": "/etc/passwd"})

    assert status == 501
    assert text == "trace file location can not be updated through network protocol"
    status, text = await door.refusal("GET", "/v2/models/no/trace/setting")
    assert (status, text) == (404, "Request for unknown model : no")


async def test_logging_settings_take_effect(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    logger = logging.getLogger("squadron")
    before = logger.level
    try:
        changed = await door.json("POST", "/v2/logging", {"log_info": False})
        assert changed["log_info"] is False
        assert logger.level == logging.WARNING
        await door.json("POST", "/v2/logging", {"log_verbose_level": 1})
        assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(before)

    assert await door.refusal("POST", "/v2/logging", {"log_file": "x"}) == (
        501,
        "log file location can not be updated through network protocol",
    )
    for change in ({"log_info": 1}, {"log_format": "mine"}, {"log_verbose_level": -1}, {"x": 1}):
        assert (await door.refusal("POST", "/v2/logging", change))[0] == 400


async def test_models_are_not_loaded_over_the_network_yet(tmp_path: Path) -> None:
    door = make_door(tmp_path)

    for verb in ("load", "unload"):
        assert await door.refusal("POST", f"/v2/repository/models/simple/{verb}") == (
            503,
            "explicit model load / unload is not allowed if polling is enabled",
        )
    assert (await door.refusal("POST", "/v2/repository/mine/models/simple/load"))[0] == 501


@pytest.mark.parametrize("body", [{"ready": "yes"}, {"ready": {}}, [1]])
async def test_an_index_is_not_filtered_by_what_is_no_boolean(tmp_path: Path, body: object) -> None:
    status, _ = await make_door(tmp_path).refusal("POST", "/v2/repository/index", body)

    assert status == 400


@pytest.mark.parametrize("ready", [b"null", b"1", b'"yes"', b"[" * 50 + b"]" * 50])
async def test_the_index_wants_a_flag_that_is_one(tmp_path: Path, ready: bytes) -> None:
    door = make_door(tmp_path)

    status, text = await door.refusal("POST", "/v2/repository/index", b'{"ready": %s}' % ready)

    assert status == 400
    assert text.startswith("'ready' must be true or false, got ")
    assert len(text) < 100


async def test_openai_answers_have_a_request_id_errors_too(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    asked = {"model": "nobody", "prompt": "a"}
    sent = {"content-type": "application/json", "x-request-id": "mine"}

    named = await door.ask("POST", "/v1/completions", asked, **sent)
    made = await door.ask("GET", "/v1/models")

    assert (named.status, dict(named.headers)["x-request-id"]) == (404, "mine")
    assert len(dict(made.headers)["x-request-id"]) == 32


async def test_a_time_limit_that_is_none_is_refused_in_openais_shape(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    for path in ("/v1/completions", "/v1/embeddings"):
        body = {"model": "shout", "prompt": "a", "input": "a"}
        reply = await door.ask("POST", path, body, **{"x-squadron-timeout-ms": "soon"})

        assert reply.status == 400
        assert set(orjson.loads(reply.chunks[0])["error"]) == {"message", "type", "param", "code"}


async def test_the_root_of_openais_paths_has_its_shape(tmp_path: Path) -> None:
    reply = await make_door(tmp_path).ask("GET", "/v1")

    assert (reply.status, orjson.loads(reply.chunks[0])["error"]["message"]) == (404, "Not Found")
