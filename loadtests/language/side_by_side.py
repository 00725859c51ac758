"""`python -m loadtests.language.side_by_side`: Squadron's vLLM beside `vllm serve`, in one run.

Both serve the same folder with the same flags on the same machine, and are asked in turns, so that
what else the machine does falls on both. Closed loop: each of c callers has one stream open.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from tests.e2e.running import free_ports, running

ROOT = Path(__file__).resolve().parents[2]
MODEL = "smollm2-135m-instruct"
LLM: dict[str, Any] = {"dtype": "float32", "max_model_len": 2048, "max_num_seqs": 32}
KV_BYTES = 2**30
WORDS = tuple("river stone cloud lamp garden winter paper bridge music window".split())  # noqa: SIM905


@dataclass(slots=True, kw_only=True)
class Seen:
    """One round at one concurrency. Times in seconds."""

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    num_tokens: int = 0
    num_chunks: int = 0
    took_s: float = 0.0
    front_cpu_s: float = 0.0


async def ask(client: httpx.AsyncClient, number: int, new_tokens: int, seen: Seen) -> None:
    words = " ".join(WORDS[(number * 7 + i * 3) % 10] for i in range(24))
    asked = {
        "model": "assistant",
        "messages": [{"role": "user", "content": f"{number}: write about {words}."}],
        "max_tokens": new_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began_s = last_s = time.perf_counter()
    has_begun = False
    async with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            seen.num_chunks += 1
            chunk = json.loads(line[6:])
            if chunk.get("usage"):
                seen.num_tokens += chunk["usage"]["completion_tokens"]
            if not chunk["choices"] or not chunk["choices"][0]["delta"].get("content"):
                continue
            now_s = time.perf_counter()
            if has_begun:
                seen.between.append(now_s - last_s)
            else:
                seen.first.append(now_s - began_s)
            has_begun, last_s = True, now_s


async def load(base: str, concurrency: int, num_requests: int, new_tokens: int) -> Seen:
    seen = Seen()
    numbers = iter(range(num_requests))
    async with httpx.AsyncClient(base_url=base, timeout=600) as client:

        async def caller() -> None:
            for number in numbers:
                await ask(client, number, new_tokens, seen)

        began_s = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(concurrency)))
        seen.took_s = time.perf_counter() - began_s
    return seen


def cpu_s(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        times = psutil.Process(pid).cpu_times()
        total += times.user + times.system
    return total


def start_vllm(folder: Path, log: Path, stack: ExitStack) -> tuple[str, list[int]]:
    (port,) = free_ports(1)
    command = [
        str(Path(sys.executable).with_name("vllm")), "serve", str(folder),
        "--served-model-name", "assistant", "--port", str(port), "--host", "127.0.0.1",
        "--dtype", LLM["dtype"], "--max-model-len", str(LLM["max_model_len"]),
        "--max-num-seqs", str(LLM["max_num_seqs"]), "--enforce-eager",
        "--kv-cache-memory-bytes", str(KV_BYTES), "--generation-config", "vllm",
    ]  # fmt: skip
    environment = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    errors = stack.enter_context(log.open("w"))
    process = subprocess.Popen(
        command, stdout=errors, stderr=errors, env={**os.environ, **environment}
    )
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    base = f"http://127.0.0.1:{port}"
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(f"{base}/health").status_code == 200:
                return base, [process.pid]
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise SystemExit("vllm serve did not start")


def start_squadron(folder: Path, stack: ExitStack) -> tuple[str, list[int]]:
    content = yaml.safe_load((ROOT / "serve_configs/llm.yaml").read_text())
    variants = content["applications"][0]["args"]["variants"]
    variants.pop("text-embedder")
    variants["assistant"]["llm"] |= {**LLM, "kv_cache_bytes": KV_BYTES}
    file = folder / "llm.yaml"
    file.write_text(yaml.safe_dump(content))
    copies = folder / "run"
    copies.mkdir()
    found = stack.enter_context(running(file, copies, store=ROOT / "models"))
    front = found.pids("ServeReplica:squadron:gateway") + found.replica_pids("assistant")
    return found.http, front


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        version = sorted((ROOT / "models" / MODEL).iterdir())[-1]
        servers = {
            "squadron": start_squadron(folder, stack),
            "vllm serve": start_vllm(version, folder / "vllm.log", stack),
        }
        for base, _ in servers.values():
            asyncio.run(load(base, 2, 4, options.new_tokens))
        for concurrency in options.concurrency:
            found: dict[str, list[Seen]] = {name: [] for name in servers}
            for turn in range(options.rounds):
                # Who goes first changes, so that a drift of the machine favours nobody.
                names = list(servers) if turn % 2 == 0 else list(servers)[::-1]
                for name in names:
                    base, front = servers[name]
                    before = cpu_s(front)
                    seen = asyncio.run(
                        load(base, concurrency, max(6, 2 * concurrency), options.new_tokens)
                    )
                    seen.front_cpu_s = cpu_s(front) - before
                    found[name].append(seen)
            report(concurrency, found)


def report(concurrency: int, found: dict[str, list[Seen]]) -> None:
    rates = {}
    for name, rounds in found.items():
        rates[name] = sum(s.num_tokens for s in rounds) / sum(s.took_s for s in rounds)
        first = statistics.median(each for s in rounds for each in s.first)
        between = statistics.median(each for s in rounds for each in s.between)
        chunks = sum(s.num_chunks for s in rounds)
        cpu_us = 1e6 * sum(s.front_cpu_s for s in rounds) / chunks
        print(
            f"c={concurrency:<3} {name:11} {rates[name]:7.1f} tok/s  TTFT p50 {first * 1e3:7.1f} ms"
            f"  ITL p50 {between * 1e3:6.1f} ms  {cpu_us:6.0f} CPU-us/chunk",
            flush=True,
        )
    ratio = rates["squadron"] / rates["vllm serve"]
    print(f"c={concurrency:<3} ratio of tokens/s {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
