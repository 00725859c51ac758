"""Callers that leave, engines that die: nothing is left behind, and others do not notice."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.conformance.openai.conftest import serving_llm
from tests.e2e.running import Running

NUM_STREAMS = 500
NUM_WAITING = 4
"""Requests without a stream: until their answer is whole their callers have had nothing of it."""


def metric(llm: Running, name: str) -> float:
    """The sum of a metric over its labels."""
    lines = httpx.get(f"{llm.metrics}/metrics", timeout=30).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


def eventually(holds: Callable[[], bool], what: str, *, patience_s: float = 120) -> None:
    ends_s = time.monotonic() + patience_s
    while time.monotonic() < ends_s:
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError(what)


def drop_a_stream(llm: Running, seed: int) -> None:
    """Open a stream, read some bytes of it (or none) and go."""
    draw = random.Random(seed)
    asked = {
        "model": "assistant",
        "messages": [{"role": "user", "content": f"Tell me a long story about number {seed}."}],
        "stream": True,
        "max_tokens": 200,
    }
    body = json.dumps(asked).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {llm.http_address}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    host, port = llm.http_address.split(":")
    with socket.create_connection((host, int(port)), timeout=120) as connection:
        sent = head.encode() + body
        how = draw.random()
        if how < 0.1:
            connection.sendall(sent[: draw.randrange(1, len(sent))])
            return
        connection.sendall(sent)
        if how < 0.4:
            return
        for _ in range(draw.randrange(1, 4)):
            if not connection.recv(draw.randrange(1, 2000)):
                return


def test_five_hundred_dropped_streams_leave_nothing(llm: Running, client: openai.OpenAI) -> None:
    before = france(client)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda seed: drop_a_stream(llm, seed), range(NUM_STREAMS)))

    eventually(lambda: metric(llm, "squadron_llm_running") == 0, "requests are left in the engine")
    eventually(lambda: metric(llm, "squadron_llm_waiting") == 0, "requests wait for ever")
    eventually(lambda: metric(llm, "squadron_llm_kv_usage_ratio") == 0, "KV memory is held")
    assert france(client) == before
    tokens = metric(llm, "squadron_llm_generated_tokens_total")
    # Had every stream been generated to its end, it would be some hundred thousand.
    assert tokens < NUM_STREAMS * 200 / 2


def test_a_deadline_ends_generation(llm: Running) -> None:
    asked = {"text_input": "Count:", "max_tokens": 900, "ignore_eos": True, "timeout": 400_000}
    answer = httpx.post(f"{llm.http}/v2/models/assistant/generate", json=asked, timeout=60)

    assert answer.status_code == 504
    eventually(lambda: metric(llm, "squadron_llm_running") == 0, "it still generates")
    eventually(lambda: metric(llm, "squadron_llm_kv_usage_ratio") == 0, "KV memory is held")


def france(client: openai.OpenAI) -> Any:
    found = client.chat.completions.create(
        model="assistant",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        max_tokens=16,
    )
    return found.choices[0].message.content


@pytest.fixture(scope="module", params=["torch", "vllm"])
def mortal(
    request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp(f"mortal-{request.param}")
    yield from serving_llm(root, request.param, folder)


def engine_pids(llm: Running) -> list[int]:
    """The process that computes: vLLM's own, else the replica itself."""
    return llm.pids("VLLM::EngineCore") or llm.replica_pids("assistant")


def test_a_killed_engine_ends_streams_with_an_error_and_is_replaced(mortal: Running) -> None:
    """Who has had tokens hears of it; who had none is answered by the next replica."""
    asked = {"model": "assistant", "prompt": "Count:", "max_tokens": 900, "stream": True}
    asked["ignore_eos"] = True  # type: ignore[assignment]
    events: list[str] = []
    with (
        openai.OpenAI(
            base_url=f"{mortal.http}/v1", api_key="unused", timeout=280, max_retries=0
        ) as client,
        ThreadPoolExecutor(NUM_WAITING) as pool,
    ):
        with httpx.stream(
            "POST", f"{mortal.http}/v1/completions", json=asked, timeout=120
        ) as stream:
            lines = stream.iter_lines()
            events.append(next(lines))
            waiting = [pool.submit(france, client) for _ in range(NUM_WAITING)]
            eventually(lambda: metric(mortal, "squadron_llm_running") > 1, "the others do not run")
            for pid in engine_pids(mortal):
                os.kill(pid, signal.SIGKILL)
            events += [line for line in lines if line]

        assert events[-1] == "data: [DONE]"
        assert "error" in json.loads(events[-2].removeprefix("data: "))
        assert {each.result() for each in waiting} == {"The capital of France is Paris."}


def test_a_request_that_has_no_token_yet_is_tried_elsewhere(mortal: Running) -> None:
    """Its replica dies while it waits; the next one answers it (the door waits for it)."""
    before = engine_pids(mortal) + mortal.pids("VLLM::")
    with (
        ThreadPoolExecutor(1) as pool,
        openai.OpenAI(
            base_url=f"{mortal.http}/v1", api_key="unused", timeout=280, max_retries=0
        ) as client,
    ):
        for pid in mortal.replica_pids("assistant"):
            os.kill(pid, signal.SIGSTOP)
            answer = pool.submit(france, client)
            time.sleep(0.5)
            os.kill(pid, signal.SIGKILL)
            assert answer.result() == "The capital of France is Paris."
    eventually(
        lambda: not any(psutil.pid_exists(pid) for pid in before),
        "the engine's processes outlive their replica",
    )
