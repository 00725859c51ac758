"""The response cache through the whole server: the engine's own count says what was computed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc_client

from tests.e2e.running import Running

pytestmark = pytest.mark.e2e


def body(value: float) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [value] * 4}
    return json.dumps({"inputs": [tensor]}).encode()


def ask(served: Running, value: float, model: str = "kept") -> httpx.Response:
    kind = {"content-type": "application/json"}
    url = f"{served.http}/v2/models/{model}/infer"
    return httpx.post(url, content=body(value), headers=kind, timeout=30)


async def ask_at_once(served: Running, value: float, times: int) -> list[httpx.Response]:
    kind = {"content-type": "application/json"}
    url = f"{served.http}/v2/models/kept/infer"
    async with httpx.AsyncClient(timeout=60, headers=kind) as client:
        asked = [client.post(url, content=body(value)) for _ in range(times)]
        return await asyncio.gather(*asked)


def statistics(served: Running, model: str = "kept") -> dict[str, Any]:
    found = httpx.get(f"{served.http}/v2/models/{model}/stats").json()["model_stats"]
    return found[0]  # type: ignore[no-any-return]


async def test_a_hundred_identical_requests_are_executed_once(served: Running) -> None:
    before = statistics(served)
    answers = await ask_at_once(served, 7, 100)
    after = statistics(served)

    assert {tuple(answer.json()["outputs"][0]["data"]) for answer in answers} == {(15.0,) * 4}
    assert after["execution_count"] - before["execution_count"] == 1
    assert after["inference_count"] - before["inference_count"] == 1
    came = [answer.headers["x-squadron-cache"] for answer in answers]
    assert came.count("miss") == 1
    assert came.count("hit") + came.count("shared") == 99
    stats = after["inference_stats"]
    assert stats["cache_hit"]["count"] - before["inference_stats"]["cache_hit"]["count"] == 99
    assert stats["cache_miss"]["count"] - before["inference_stats"]["cache_miss"]["count"] == 1


def test_hits_are_counted_under_tritons_names(served: Running) -> None:
    answers = [ask(served, 8) for _ in range(3)]
    httpx.get(f"{served.http}/v2/models/stats")
    metrics = httpx.get(served.metrics).text

    assert [answer.headers["x-squadron-cache"] for answer in answers] == ["miss", "hit", "hit"]
    assert answers[1].json()["parameters"]["squadron_cache"] == "hit"
    counted = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("nv_cache_")
    }
    labels = '{model="kept",version="1"}'
    assert counted[f"nv_cache_num_hits_per_model{labels}"] >= 2
    assert counted[f"nv_cache_num_misses_per_model{labels}"] >= 1


def test_a_step_of_an_ensemble_is_answered_from_the_cache(served: Running) -> None:
    first = ask(served, 9, "twice")
    before = statistics(served)["execution_count"]
    second, step = ask(served, 9, "twice"), ask(served, 9)
    after = statistics(served)["execution_count"]

    assert first.json()["outputs"] == second.json()["outputs"]
    assert second.json()["outputs"][0]["data"] == [39.0] * 4
    assert step.headers["x-squadron-cache"] == "hit"
    assert after == before


def test_grpc_and_http_share_answers(served: Running) -> None:
    ask(served, 10)
    with grpc_client.InferenceServerClient(served.grpc) as client:
        asked = grpc_client.InferInput("x", [1, 4], "FP32")
        asked.set_data_from_numpy(np.full((1, 4), 10, np.float32))
        answer = client.infer("kept", [asked])

    assert answer.get_response().parameters["squadron_cache"].string_param == "hit"
    assert answer.as_numpy("y").tolist() == [[21.0] * 4]
