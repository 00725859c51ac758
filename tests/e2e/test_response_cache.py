"""The response cache through the whole server: the engine's own count says what was computed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import yaml

from tests.e2e.running import Running, running

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def started(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`echo` (y = 2 * x + 1) takes 300 ms and keeps its answers; `twice` is it two times."""
    folder = tmp_path_factory.mktemp("response_cache")
    content = yaml.safe_load((root / "serve_configs/dev.yaml").read_text())
    args = content["applications"][0]["args"]
    on = {"enabled": True, "ttl_s": 3600}
    args["variants"]["echo"] |= {"response_cache": on, "options": {"delay_ms": 300}}
    steps = [
        {"model": "echo", "outputs": {"y": "half"}},
        {"model": "echo", "inputs": {"x": "half"}, "outputs": {"y": "y"}},
    ]
    args["ensembles"] = {"twice": {"inputs": ["x"], "outputs": ["y"], "steps": steps}}
    (folder / "source").mkdir()
    file = folder / "source" / "cached.yaml"
    file.write_text(yaml.safe_dump(content))
    with running(file, folder) as found:
        yield found


def body(value: float) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [value] * 4}
    return json.dumps({"inputs": [tensor]}).encode()


def ask(started: Running, value: float, model: str = "echo") -> httpx.Response:
    kind = {"content-type": "application/json"}
    url = f"{started.http}/v2/models/{model}/infer"
    return httpx.post(url, content=body(value), headers=kind, timeout=30)


async def ask_at_once(started: Running, value: float, times: int) -> list[httpx.Response]:
    kind = {"content-type": "application/json"}
    url = f"{started.http}/v2/models/echo/infer"
    async with httpx.AsyncClient(timeout=60, headers=kind) as client:
        asked = [client.post(url, content=body(value)) for _ in range(times)]
        return await asyncio.gather(*asked)


def statistics(started: Running, model: str = "echo") -> dict[str, Any]:
    found = httpx.get(f"{started.http}/v2/models/{model}/stats").json()["model_stats"]
    return found[0]  # type: ignore[no-any-return]


async def test_a_hundred_identical_requests_are_executed_once(started: Running) -> None:
    before = statistics(started)
    answers = await ask_at_once(started, 7, 100)
    after = statistics(started)

    assert {tuple(answer.json()["outputs"][0]["data"]) for answer in answers} == {(15.0,) * 4}
    assert after["execution_count"] - before["execution_count"] == 1
    assert after["inference_count"] - before["inference_count"] == 1
    came = [answer.headers["x-squadron-cache"] for answer in answers]
    assert came.count("miss") == 1
    assert came.count("hit") + came.count("shared") == 99
    stats = after["inference_stats"]
    assert stats["cache_hit"]["count"] - before["inference_stats"]["cache_hit"]["count"] == 99
    assert stats["cache_miss"]["count"] - before["inference_stats"]["cache_miss"]["count"] == 1


def test_hits_are_counted_under_tritons_names(started: Running) -> None:
    answers = [ask(started, 8) for _ in range(3)]
    httpx.get(f"{started.http}/v2/models/stats")
    metrics = httpx.get(started.metrics).text

    assert [answer.headers["x-squadron-cache"] for answer in answers] == ["miss", "hit", "hit"]
    assert answers[1].json()["parameters"]["squadron_cache"] == "hit"
    counted = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("nv_cache_")
    }
    labels = '{model="echo",version="1"}'
    assert counted[f"nv_cache_num_hits_per_model{labels}"] >= 2
    assert counted[f"nv_cache_num_misses_per_model{labels}"] >= 1


def test_a_step_of_an_ensemble_is_answered_from_the_cache(started: Running) -> None:
    first = ask(started, 9, "twice")
    before = statistics(started)["execution_count"]
    second, step = ask(started, 9, "twice"), ask(started, 9)
    after = statistics(started)["execution_count"]

    assert first.json()["outputs"] == second.json()["outputs"]
    assert second.json()["outputs"][0]["data"] == [39.0] * 4
    assert step.headers["x-squadron-cache"] == "hit"
    assert after == before


def test_grpc_and_http_share_answers(started: Running) -> None:
    ask(started, 10)
    with grpc_client.InferenceServerClient(started.grpc) as client:
        asked = grpc_client.InferInput("x", [1, 4], "FP32")
        asked.set_data_from_numpy(np.full((1, 4), 10, np.float32))
        answer = client.infer("echo", [asked])

    assert answer.get_response().parameters["squadron_cache"].string_param == "hit"
    assert answer.as_numpy("y").tolist() == [[21.0] * 4]
