"""Autoscaling in a running Squadron: up with the load, to zero without, the first request held."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.running import Running, running

pytestmark = pytest.mark.e2e

CARD = {
    "name": "slow",
    "format": "fake",
    "signature": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    },
}
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}
PATIENCE_S = 60.0


def variant(**autoscaling: Any) -> dict[str, Any]:
    return {
        "card": CARD,
        "options": {"delay_ms": 100},
        "batching": {"mode": "off", "max_batch_size": 1},
        "autoscaling": {"slo_ms": 500, "downscale_delay_s": 5, "startup_s": 3, **autoscaling},
    }


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("autoscaling")
    args = {
        "variants": {
            "slow": variant(max_replicas=3, look_back_period_s=5),
            "rare": variant(min_replicas=0, max_replicas=1, downscale_to_zero_delay_s=5),
        }
    }
    application = {
        "name": "squadron",
        "route_prefix": "/",
        "import_path": "actors.app:build",
        "args": args,
    }
    file = folder / "autoscaling.yaml"
    file.write_text(
        yaml.safe_dump({"http_options": {"host": "127.0.0.1"}, "applications": [application]})
    )
    with running(file, folder) as found:
        yield found


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < until_s, what
        time.sleep(0.2)


def metric(started: Running, name: str) -> float:
    answer = httpx.get(started.metrics)
    assert answer.status_code == 200, answer.text
    (found,) = [line for line in answer.text.splitlines() if line.startswith(name)]
    return float(found.rpartition(" ")[2])


def test_replicas_come_with_the_load_and_go_without_it(started: Running) -> None:
    async def load() -> set[int]:
        statuses = set()
        async with httpx.AsyncClient(base_url=started.http, timeout=60) as client:

            async def caller() -> None:
                while len(started.replica_pids("slow")) < 3 and time.monotonic() < until_s:
                    answer = await client.post("/v2/models/slow/infer", json=BODY)
                    statuses.add(answer.status_code)

            until_s = time.monotonic() + PATIENCE_S
            await asyncio.gather(*(caller() for _ in range(12)))
        return statuses

    assert asyncio.run(load()) == {200}
    assert len(started.replica_pids("slow")) == 3
    assert metric(started, 'squadron_autoscaling_target_replicas{variant="slow"}') == 3
    wait_until(lambda: len(started.replica_pids("slow")) == 1, "the replicas stayed")
    told = httpx.get(f"{started.http}/admin/v1/autoscaling").json()
    decisions = told["decisions"] if isinstance(told, dict) else told
    assert {each["variant"] for each in decisions} == {"slow", "rare"}
    assert all(each["reason"] for each in decisions)


def test_a_variant_at_zero_holds_its_first_request_until_a_replica_answers(
    started: Running,
) -> None:
    assert httpx.get(f"{started.http}/v2/health/ready").status_code == 200
    wait_until(lambda: not started.replica_pids("rare"), "it did not go to zero")

    answers = [
        httpx.post(f"{started.http}/v2/models/rare/infer", json=BODY, timeout=60) for _ in range(2)
    ]

    assert [answer.json()["outputs"][0]["data"] for answer in answers] == [[3.0], [3.0]]
    wait_until(lambda: not started.replica_pids("rare"), "it did not go back to zero")
    assert httpx.get(f"{started.http}/v2/health/ready").status_code == 200
