"""Autoscaling in a running Squadron: up with the load, to zero without, the first request held."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.running import Running

pytestmark = pytest.mark.e2e

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}
PATIENCE_S = 60.0


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < until_s, what
        time.sleep(0.2)


def metric(served: Running, name: str) -> float:
    answer = httpx.get(served.metrics)
    assert answer.status_code == 200, answer.text
    (found,) = [line for line in answer.text.splitlines() if line.startswith(name)]
    return float(found.rpartition(" ")[2])


def test_replicas_come_with_the_load_and_go_without_it(served: Running) -> None:
    async def load() -> set[int]:
        statuses = set()
        async with httpx.AsyncClient(base_url=served.http, timeout=60) as client:

            async def caller() -> None:
                while len(served.replica_pids("crowded")) < 3 and time.monotonic() < until_s:
                    answer = await client.post("/v2/models/crowded/infer", json=BODY)
                    statuses.add(answer.status_code)

            until_s = time.monotonic() + PATIENCE_S
            await asyncio.gather(*(caller() for _ in range(12)))
        return statuses

    assert asyncio.run(load()) == {200}
    assert len(served.replica_pids("crowded")) == 3
    assert metric(served, 'squadron_autoscaling_target_replicas{variant="crowded"}') == 3
    wait_until(lambda: len(served.replica_pids("crowded")) == 1, "the replicas stayed")
    told = httpx.get(f"{served.http}/admin/v1/autoscaling").json()
    decisions = told["decisions"] if isinstance(told, dict) else told
    assert {each["variant"] for each in decisions} == {"crowded", "rare"}
    assert all(each["reason"] for each in decisions)
    scaled = decided_again(served, "ray::Autoscaler")
    assert ("autoscaling", "crowded") in scaled
    assert ("set_state", "crowded") in decided_again(served, "ray::Controller")


def decided_again(served: Running, title: str) -> set[tuple[str, str]]:
    """What a process has logged as decided: each line alone gives the same decisions again."""
    (pid,) = served.pids(title)
    log = Path(f"/proc/{pid}/fd/2").resolve()
    program = Path(sys.executable).with_name("squadron")
    done = subprocess.run(
        [str(program), "explain", "--replay", str(log), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {(each["kind"], each["subject"]) for each in json.loads(done.stdout)}


def test_a_variant_at_zero_holds_its_first_request_until_a_replica_answers(
    served: Running,
) -> None:
    assert httpx.get(f"{served.http}/v2/health/ready").status_code == 200
    wait_until(lambda: not served.replica_pids("rare"), "it did not go to zero")

    answers = [
        httpx.post(f"{served.http}/v2/models/rare/infer", json=BODY, timeout=60) for _ in range(2)
    ]

    assert [answer.json()["outputs"][0]["data"] for answer in answers] == [[3.0], [3.0]]
    wait_until(lambda: not served.replica_pids("rare"), "it did not go back to zero")
    assert httpx.get(f"{served.http}/v2/health/ready").status_code == 200
