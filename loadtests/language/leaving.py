"""Streams opened and dropped, an engine killed: what is left behind and how long it takes.

    python -m loadtests.language.leaving --engine vllm
    python -m loadtests.language.leaving --engine torch --streams 500

Streams go through the door over bare sockets: a tenth ends within the request, some before the
first byte of the answer, the rest within it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx

from loadtests.language.servers import running_squadron
from tests.e2e.running import Running

MAX_TOKENS = 200
CALLERS = 16
GAUGES = ("squadron_llm_running", "squadron_llm_waiting", "squadron_llm_kv_usage_ratio")
PATIENCE_S = 300
"""The server's own limit of a request (`default_timeout_s` of `llm.yaml`)."""
FRANCE = {
    "model": "assistant",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 16,
}
STORY = {
    "model": "assistant",
    "prompt": "Once upon a time",
    "temperature": 0,
    "max_tokens": 160,
    "ignore_eos": True,
}


def metric(running: Running, name: str, variant: str = "") -> float:
    """The sum of a metric over its labels, or over those of one variant. **Raises:**
    AssertionError when there is none: a check of what is not there would always pass."""
    with urlopen(running.metrics, timeout=60) as page:
        lines = page.read().decode().splitlines()
    found = [
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith(f"{name}{{") and (not variant or f'"{variant}"' in line)
    ]
    assert found, f"no {name} at {running.metrics}"
    return sum(found)


def eventually(holds: Callable[[], bool], what: str, *, patience_s: float = PATIENCE_S) -> float:
    """Seconds until it holds. **Raises:** AssertionError."""
    began_s = time.monotonic()
    while time.monotonic() < began_s + patience_s:
        if holds():
            return time.monotonic() - began_s
        time.sleep(0.1)
    raise AssertionError(what)


def drop_a_stream(address: str, seed: int) -> None:
    """Open a stream, read some bytes of it (or none) and go."""
    draw = random.Random(seed)
    asked = {
        "model": "assistant",
        "messages": [{"role": "user", "content": f"Tell me a long story about number {seed}."}],
        "stream": True,
        "max_tokens": MAX_TOKENS,
        "ignore_eos": True,
    }
    body = json.dumps(asked).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        sent = head.encode() + body
        how = draw.random()
        if how < 0.1:
            connection.sendall(sent[: draw.randrange(1, len(sent))])
            return
        connection.sendall(sent)
        if how < 0.4:
            return
        for _ in range(draw.randrange(1, 8)):
            if not connection.recv(draw.randrange(1, 2000)):
                return


def drop_streams(running: Running, count: int) -> float:
    """The tokens that were generated for streams that nobody read to the end, once the engine has
    nothing left of them. **Raises:** AssertionError when something is left."""
    before = metric(running, "squadron_llm_generated_tokens_total")
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(lambda seed: drop_a_stream(running.http_address, seed), range(count)))
    for name in GAUGES:
        eventually(lambda name=name: metric(running, name) == 0, f"{name} stays above 0")  # type: ignore[misc]
    return metric(running, "squadron_llm_generated_tokens_total") - before


def engine_pids(running: Running) -> list[int]:
    """The process that computes: vLLM's own, else the replica itself."""
    return running.pids("VLLM::EngineCore") or running.replica_pids("assistant")


def france(running: Running) -> str:
    """The model's answer. **Raises:** httpx.HTTPStatusError."""
    answer = httpx.post(f"{running.http}/v1/chat/completions", json=FRANCE, timeout=PATIENCE_S)
    answer.raise_for_status()
    return str(answer.json()["choices"][0]["message"]["content"])


def story(running: Running) -> str:
    """A completion of some seconds without a stream: its caller has nothing of it until its end.
    **Raises:** httpx.HTTPStatusError."""
    answer = httpx.post(f"{running.http}/v1/completions", json=STORY, timeout=PATIENCE_S)
    answer.raise_for_status()
    return str(answer.json()["choices"][0]["text"])


def kill_under_work(running: Running, count: int) -> list[str]:
    """What `count` callers of `story` get, whose engine is killed while it computes for them."""
    with ThreadPoolExecutor(count) as pool:
        waiting = [pool.submit(story, running) for _ in range(count)]
        eventually(
            lambda: metric(running, "squadron_llm_running") >= count, "the requests do not run"
        )
        for pid in engine_pids(running):
            os.kill(pid, signal.SIGKILL)
        return [each.result() for each in waiting]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=["vllm", "torch"], default="vllm")
    parser.add_argument("--streams", type=int, default=500)
    options = parser.parse_args()

    def change(variants: dict[str, Any]) -> None:
        variants["assistant"]["engine"] = options.engine

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print(f"starting Squadron with engine {options.engine} …", file=sys.stderr)
        running = running_squadron(folder, stack, change)
        expected = france(running)
        began_s = time.monotonic()
        tokens = drop_streams(running, options.streams)
        print(
            f"{options.streams} streams dropped, engine and KV memory empty after "
            f"{time.monotonic() - began_s:.1f} s; {tokens:.0f} of "
            f"{options.streams * MAX_TOKENS} tokens generated; next answer "
            f"{'right' if france(running) == expected else 'WRONG'}"
        )
        expected = story(running)
        began_s = time.monotonic()
        right = sum(each == expected for each in kill_under_work(running, 4))
        print(
            f"engine killed with 4 requests under way: {right} of 4 answered rightly by the next "
            f"replica, the last after {time.monotonic() - began_s:.1f} s"
        )


if __name__ == "__main__":
    main()
