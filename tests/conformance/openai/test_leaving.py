"""Callers that leave, engines that die: nothing is left behind, and others do not notice."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from loadtests.language.leaving import (
    MAX_TOKENS,
    drop_streams,
    engine_pids,
    eventually,
    france,
    kill_under_work,
    metric,
    story,
)
from tests.conformance.conftest import IS_WHOLE
from tests.conformance.openai.conftest import serving_llm
from tests.e2e.running import Running

NUM_STREAMS = 500 if IS_WHOLE else 60
PARIS = "The capital of France is Paris."


@pytest.mark.slice
def test_dropped_streams_leave_nothing(llm: Running) -> None:
    before = france(llm)

    tokens = drop_streams(llm, NUM_STREAMS)

    assert france(llm) == before
    # Generated to their end they would all be there.
    assert tokens < NUM_STREAMS * MAX_TOKENS / 2


def test_a_stream_that_its_client_cancels_ends_generation(
    llm: Running, client: openai.OpenAI
) -> None:
    stream = client.completions.create(
        model="assistant",
        prompt="Count:",
        max_tokens=900,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    stream.close()

    eventually(lambda: metric(llm, "squadron_llm_running") == 0, "it still generates")
    eventually(lambda: metric(llm, "squadron_llm_kv_usage_ratio") == 0, "KV memory is held")


def test_a_deadline_ends_generation(llm: Running) -> None:
    asked = {"text_input": "Count:", "max_tokens": 900, "ignore_eos": True, "timeout": 400_000}
    answer = httpx.post(f"{llm.http}/v2/models/assistant/generate", json=asked, timeout=60)

    assert answer.status_code == 504
    eventually(lambda: metric(llm, "squadron_llm_running") == 0, "it still generates")
    eventually(lambda: metric(llm, "squadron_llm_kv_usage_ratio") == 0, "KV memory is held")


@pytest.fixture(scope="module", params=["torch", "vllm"])
def mortal(
    request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp(f"mortal-{request.param}")
    yield from serving_llm(root, request.param, folder)


def test_a_killed_engine_ends_streams_with_an_error_and_is_replaced(mortal: Running) -> None:
    """Who has had tokens hears of it; who had none is answered by the next replica."""
    expected = story(mortal)
    asked = {"model": "assistant", "prompt": "Count:", "max_tokens": 900, "stream": True}
    asked["ignore_eos"] = True
    with httpx.stream("POST", f"{mortal.http}/v1/completions", json=asked, timeout=240) as stream:
        lines = stream.iter_lines()
        events = [next(lines)]
        answers = kill_under_work(mortal, 4)
        events += [line for line in lines if line]

    assert events[-1] == "data: [DONE]"
    assert "error" in json.loads(events[-2].removeprefix("data: "))
    assert answers == [expected] * 4


def test_a_request_that_has_no_token_yet_is_tried_elsewhere(mortal: Running) -> None:
    """Its replica dies while it waits; the next one answers it (the door waits for it)."""
    before = engine_pids(mortal) + mortal.pids("VLLM::")
    with ThreadPoolExecutor(1) as pool:
        for pid in mortal.replica_pids("assistant"):
            os.kill(pid, signal.SIGSTOP)
            answer = pool.submit(france, mortal)
            time.sleep(0.5)
            os.kill(pid, signal.SIGKILL)
            assert answer.result() == PARIS
    eventually(
        lambda: not any(psutil.pid_exists(pid) for pid in before),
        "the engine's processes outlive their replica",
    )
