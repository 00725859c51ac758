"""What shared memory and kept answers save or cost: CPU a request of every process.

    python -m loadtests.extensions [--blocks 6]

One caller, one request after the other, cases in turn and every second round backwards; each figure
is the median of its blocks. CPU counts in ticks of 10 ms, so a block runs for a second or more.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.utils.shared_memory as shm

from loadtests.servers import Running, squadron
from loadtests.usage import cpu_us_per_request

NUM_FLOATS = 2**18
SIZE = 4 * NUM_FLOATS
JSON = {"content-type": "application/json"}
Send = Callable[[], str]
"""One request; what the answer says of the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    send: Send
    cache: str
    num_requests: int


def change(args: dict[str, Any]) -> None:
    """Shared memory on, and of two models a twin that keeps its answers."""
    args["server"]["shared_memory"] = {"enabled": True, "prefixes": ["/squadron_bench_"]}
    kept = {"response_cache": {"enabled": True, "ttl_s": 3600}}
    variants = args["variants"]
    for name in ("identity", "minilm-int8"):
        variants[f"{name}-kept"] = {**variants[name], **kept}


class Caller:
    """One connection."""

    def __init__(self, running: Running) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", running.http_port)
        self._random = np.random.default_rng(0)

    def post(self, path: str, body: bytes, **headers: str) -> str:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        self._connection.request("POST", path, body, {**JSON, **named})
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content[:500]
        return answer.getheader("x-squadron-cache") or "off"

    def infer(self, model: str, inputs: list[dict[str, Any]]) -> str:
        return self.post(f"/v2/models/{model}/infer", json.dumps({"inputs": inputs}).encode())

    def identity(self, model: str, *, is_new: bool) -> str:
        data = self._random.random(16).tolist() if is_new else [1.0] * 16
        return self.infer(
            model, [{"name": "x", "datatype": "FP32", "shape": [1, 16], "data": data}]
        )

    def minilm(self, model: str, *, is_new: bool) -> str:
        words = self._random.integers(1000, 20000, 32).tolist() if is_new else [2000] * 32
        named = {"input_ids": words, "attention_mask": [1] * 32, "token_type_ids": [0] * 32}
        tensor = {"datatype": "INT64", "shape": [1, 32]}
        return self.infer(
            model, [{"name": name, **tensor, "data": data} for name, data in named.items()]
        )


class Megabyte:
    """1 MiB in and 1 MiB out, as binary bodies or through two regions."""

    def __init__(self, caller: Caller, stack: ExitStack) -> None:
        self._caller = caller
        self._values = np.arange(NUM_FLOATS, dtype=np.float32)
        self._regions: dict[str, Any] = {}
        for name in ("in", "out"):
            key = f"/squadron_bench_{name}"
            region = shm.create_shared_memory_region(name, key, SIZE)
            stack.callback(shm.destroy_shared_memory_region, region)
            about = json.dumps({"key": key, "byte_size": SIZE}).encode()
            caller.post(f"/v2/systemsharedmemory/region/{name}/register", about)
            self._regions[name] = region

    def shared(self) -> str:
        shm.set_shared_memory_region(self._regions["in"], [self._values])
        how = self._caller.post("/v2/models/identity-1mb/infer", self._head(is_shared=True))
        shm.get_contents_as_numpy(self._regions["out"], np.float32, [1, NUM_FLOATS])
        return how

    def binary(self) -> str:
        head = self._head(is_shared=False)
        return self._caller.post(
            "/v2/models/identity-1mb/infer",
            head + self._values.tobytes(),
            inference_header_content_length=str(len(head)),
        )

    def _head(self, *, is_shared: bool) -> bytes:
        def place(region: str) -> dict[str, Any]:
            return {"shared_memory_region": region, "shared_memory_byte_size": SIZE}

        given = place("in") if is_shared else {"binary_data_size": SIZE}
        taken = place("out") if is_shared else {"binary_data": True}
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, NUM_FLOATS]}
        inputs = [{**tensor, "parameters": given}]
        return json.dumps(
            {"inputs": inputs, "outputs": [{"name": "y", "parameters": taken}]}
        ).encode()


def cases(caller: Caller, megabyte: Megabyte) -> list[Case]:
    found = [
        Case(name="1 MiB shared", send=megabyte.shared, cache="off", num_requests=400),
        Case(name="1 MiB binary", send=megabyte.binary, cache="off", num_requests=400),
    ]
    for model, ask, num_requests in (
        ("identity", caller.identity, 4000),
        ("minilm-int8", caller.minilm, 300),
    ):
        for how, twin in (("hit", f"{model}-kept"), ("miss", f"{model}-kept"), ("off", model)):
            found.append(
                Case(
                    name=f"{model} {how}",
                    send=lambda ask=ask, twin=twin, how=how: ask(twin, is_new=how != "hit"),  # type: ignore[misc]
                    cache=how,
                    num_requests=max(num_requests, 4000 if how == "hit" else 0),
                )
            )
    return found


def measure(running: Running, case: Case) -> dict[str, float]:
    """CPU and wall microseconds a request. What the answers say of the cache must hold."""
    watched = running.watched()
    before, began_s = watched.read(), time.perf_counter()
    said = {case.send() for _ in range(case.num_requests)}
    seconds, after = time.perf_counter() - began_s, watched.read()
    assert said == {case.cache}, (case.name, said)
    costs = cpu_us_per_request(before, after, case.num_requests)
    wanted = {key: cost for key, cost in costs.items() if key == "generator" or "replica" in key}
    return {
        "server": sum(cost for key, cost in wanted.items() if key != "generator"),
        "client": wanted["generator"],
        "wall": seconds / case.num_requests * 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=6)
    blocks = parser.parse_args().blocks
    with (
        tempfile.TemporaryDirectory() as scratch,
        squadron(Path(scratch), change=change) as running,
        ExitStack() as stack,
    ):
        caller = Caller(running)
        every = cases(caller, Megabyte(caller, stack))
        for case in every:
            for _ in range(20):
                case.send()
        found: dict[str, list[dict[str, float]]] = {case.name: [] for case in every}
        for block in range(blocks):
            for case in every if block % 2 == 0 else reversed(every):
                found[case.name].append(measure(running, case))
    medians = {
        name: {key: round(statistics.median(run[key] for run in runs)) for key in runs[0]}
        for name, runs in found.items()
    }
    print(json.dumps({"unit": "us a request", "blocks": blocks, "cases": medians}, indent=2))


if __name__ == "__main__":
    main()
