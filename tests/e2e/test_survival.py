"""Killed with -9 under load: nothing unanswered is lost; malformed bodies break nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.config.store import ModelStore
from loadtests.soak import soak
from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.models]

JSON = {"content-type": "application/json"}


def test_a_thousand_requests_at_concurrency_32_are_all_answered(prod: Running) -> None:
    result = asyncio.run(soak(prod.http, "sentiment", num_requests=1000, concurrency=32))

    assert result.statuses == {200: 1000}


def kill_under_load(
    prod: Running, store: ModelStore, find: Callable[[], list[int]]
) -> tuple[dict[int, int], float]:
    """Statuses of the requests around a kill -9, and seconds until a new process is there."""
    photo = (store.root / ".samples" / "scikit-image" / "chelsea.png").read_bytes()
    before = set(find())
    assert before

    async def run() -> tuple[dict[int, int], float]:
        load = asyncio.create_task(
            soak(
                prod.http,
                "photo-classifier-fp32",
                num_requests=600,
                concurrency=16,
                photo=photo,
            )
        )
        await asyncio.sleep(1.0)
        os.kill(min(before), signal.SIGKILL)
        killed_s = time.monotonic()
        while len(set(find()) - {min(before)}) < len(before):
            await asyncio.sleep(0.1)
            assert time.monotonic() - killed_s < 60, "no replacement came"
        recovered_s = time.monotonic() - killed_s
        return (await load).statuses, recovered_s

    return asyncio.run(run())


def test_a_killed_replica_loses_no_request(prod: Running, store: ModelStore) -> None:
    statuses, _ = kill_under_load(prod, store, lambda: prod.replica_pids("photo-classifier-fp32"))

    assert statuses == {200: 600}


def test_a_killed_controller_loses_no_request_and_comes_back(
    prod: Running, store: ModelStore
) -> None:
    statuses, _ = kill_under_load(prod, store, lambda: prod.pids("ray::Controller"))

    assert statuses == {200: 600}
    deadline_s = time.monotonic() + 30
    while httpx.get(f"{prod.http}/v2/health/ready").status_code != 200:
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "datatype", "shape", "data", "parameters", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
bodies = (
    st.binary(max_size=200)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {"inputs": json_values | st.lists(json_values, max_size=2)},
        optional={"outputs": json_values, "parameters": json_values, "id": json_values},
    ).map(lambda value: json.dumps(value).encode())
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "inference-header-content-length": st.sampled_from(["0", "1", "-1", "7", "x", "9" * 30]),
        "content-type": st.sampled_from(["application/json", "image/png", "text/plain"]),
    },
)


def test_a_thousand_malformed_bodies_never_make_a_500(prod: Running) -> None:
    seen: dict[int, int] = {}

    @settings(
        max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(bodies, headers, st.sampled_from(["photo-classifier", "text-embedder", "sentiment"]))
    def send(body: bytes, head: dict[str, str], model: str) -> None:
        answer = client.post(f"/v2/models/{model}/infer", content=body, headers=head)
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
        assert answer.status_code in (200, 400), (answer.status_code, answer.text)
        if answer.status_code == 400:
            assert answer.json()["error"]

    with httpx.Client(base_url=prod.http, timeout=30) as client:
        send()
        assert client.get("/v2/health/ready").status_code == 200

    assert sum(seen.values()) >= 1000
