"""Experiments on a running server: verdicts, a controller that is killed, and what a mirror costs.

    python -m loadtests.live_experiments verdicts    # slower and worse arms go, an equal one stays
    python -m loadtests.live_experiments kills       # 20 kill -9 of the controller under load
    python -m loadtests.live_experiments mirror      # CPU of the caller's path, with and without

One JSON line a finding. Models are those of `loadtests.measured_models`, whose truth is known.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import queue
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadtests.measured_models import (
    RAW,
    experiment,
    truth,
    variants_of,
    write_store,
)
from loadtests.servers import Running, squadron
from loadtests.usage import cpu_us_per_request

JSON = {"content-type": "application/json"}
VERDICT_S = 240.0
TOLD_S = 3.0
"""Doors tell once a second which requests they answered."""


def say(what: str, **found: object) -> None:
    print(json.dumps({"what": what, **found}), flush=True)


@contextmanager
def serving(experiments: dict[str, Any], *, doors: int, batch: int) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        write_store(folder / "store")

        def change(args: dict[str, Any]) -> None:
            args["store"]["path"] = str(folder / "store")
            args["server"].update(doors_per_node=doors, state_folder=str(folder / "state"))
            args["variants"] = variants_of(batch=batch)
            args["experiments"] = experiments
            args.pop("ensembles", None)

        with squadron(folder, change=change) as running:
            yield running


class Caller:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def call(self, method: str, path: str, content: object = None) -> tuple[int, Any, str]:
        """(status, JSON, the id of the request)."""
        body = None if content is None else json.dumps(content)
        self._connection.request(method, path, body, JSON)
        answer = self._connection.getresponse()
        found = json.loads(answer.read())
        return answer.status, found, answer.headers.get("x-request-id", "")

    def infer(self, model: str, x: int) -> tuple[int, Any, str]:
        tensor = {"name": "x", "datatype": "INT32", "shape": [1, 1], "data": [x]}
        return self.call("POST", f"/v2/models/{model}/infer", {"inputs": [tensor]})

    def shown(self, name: str) -> Any:
        """As the controller says; one that is coming back is asked again."""
        while True:
            self._connection.request("GET", f"/admin/v1/experiments/{name}")
            answer = self._connection.getresponse()
            found = json.loads(answer.read())
            if answer.status == 200 and "age" not in answer.headers:
                return found
            if answer.status not in (200, 503, 504):
                raise RuntimeError(f"{name}: {answer.status} {found}")
            time.sleep(0.2)


class Load:
    """Callers in threads, one after the other each; every answer is rated, by a thread of its own:
    feedback waits for a controller that is away, and requests are not to wait for feedback."""

    def __init__(self, running: Running, model: str, callers: int) -> None:
        self.statuses: Counter[int] = Counter()
        self._running, self._model = running, model
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(callers)
        ]
        self.rated: Counter[str] = Counter()
        self._ratings: queue.SimpleQueue[list[dict[str, object]] | None] = queue.SimpleQueue()
        self._rater = threading.Thread(target=self._rate, daemon=True)

    def __enter__(self) -> Load:
        for thread in (*self._threads, self._rater):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        self._ratings.put(None)
        self._rater.join(120)

    def _rate(self) -> None:
        caller = Caller(self._running.http_port)
        path = f"/admin/v1/experiments/{self._model}/feedback"
        while (ratings := self._ratings.get()) is not None:
            status, said, _ = caller.call("POST", path, ratings)
            # 202: the controller is still coming back, and the door keeps the values for it.
            assert status in (200, 202), said
            self.rated.update(said)

    def _run(self, number: int) -> None:
        caller = Caller(self._running.http_port)
        rated: list[dict[str, object]] = []
        x = number * 1_000_000
        while not self._stop.is_set():
            x += 1
            try:
                status, answer, request_id = caller.infer(self._model, x)
            except OSError:
                self.statuses[0] += 1
                caller = Caller(self._running.http_port)
                continue
            self.statuses[status] += 1
            if status == 200:
                right = answer["outputs"][0]["data"][0] == truth(x)
                rated.append({"request_id": request_id, "value": int(right)})
            if len(rated) >= 50:
                self._ratings.put(rated)
                rated = []
        self._ratings.put(rated)


def verdicts(callers: int, only: list[str]) -> None:
    rails = {"guardrails": {"latency": 0.05, "quality": 0.0}}
    experiments = {
        "slower-arm": experiment("slower", **rails),
        "worse-arm": experiment("worse", **rails),
        "equal-arm": experiment("equal", **rails),
        "slower-canary": experiment(
            "slower",
            **rails,
            canary={"steps": [5, 25, 50, 100], "step_s": 20, "step_requests": 50},
        ),
        "equal-canary": experiment(
            "equal",
            **rails,
            canary={"steps": [5, 25, 50, 100], "step_s": 20, "step_requests": 50},
        ),
    }
    with serving(experiments, doors=2, batch=8) as running:
        caller = Caller(running.http_port)
        for name in only or experiments:
            with Load(running, name, callers) as load:
                began_s = time.monotonic()
                limit_s = 120.0 if name.startswith("equal") else VERDICT_S
                while (found := caller.shown(name))["status"] == "running":
                    if time.monotonic() - began_s > limit_s:
                        break
                    time.sleep(0.5)
            say(
                name,
                status=found["status"],
                reason=found["reason"],
                seconds=round(time.monotonic() - began_s, 1),
                requests=[arm["requests"] for arm in found["arms"]],
                p50_ms=[arm["latency_ms"]["p50"] for arm in found["arms"]],
                quality=[arm["quality"] for arm in found["arms"]],
                rated=[arm["rated"] for arm in found["arms"]],
                sample_ratio=found["sample_ratio"],
                statuses=dict(load.statuses),
            )


def kills(callers: int, num_kills: int, every_s: float) -> None:
    with serving({"fair": experiment("equal")}, doors=2, batch=8) as running:
        caller = Caller(running.http_port)
        push_s: list[float] = []
        answers = lost = wrong = 0
        with Load(running, "fair", callers) as load:
            for turn in range(num_kills):
                began_s = time.monotonic()
                weights = {"control": 1 + turn % 3, "equal": turn % 2}
                status, _, _ = caller.call("PUT", "/admin/v1/experiments/fair/weights", weights)
                push_s.append(time.monotonic() - began_s)
                answers += status == 200
                (pid,) = running.watched().pids["Controller"]
                os.kill(pid, signal.SIGKILL)
                for x in range(10):
                    named = Caller(running.http_port).infer("fair", x)[1]["parameters"]
                    wrong += turn % 2 == 0 and named["squadron_variant"] != "control"
                kept = {arm["name"]: arm["weight"] for arm in caller.shown("fair")["arms"]}
                lost += kept != weights
                time.sleep(max(0.0, every_s - (time.monotonic() - began_s)))
        time.sleep(TOLD_S)
        counted = sum(arm["rated"] for arm in caller.shown("fair")["arms"])
        say(
            "controller killed",
            kills=num_kills,
            seconds=round(num_kills * every_s),
            statuses=dict(load.statuses),
            weight_changes_ok=answers,
            settings_lost=lost,
            feedback=dict(load.rated),
            feedback_lost=load.rated["accepted"] - counted,
            requests_by_old_weights=wrong,
            push_ms={
                "median": round(1e3 * statistics.median(push_s), 1),
                "max": round(1e3 * max(push_s), 1),
            },
        )


def mirror(blocks: int, num_requests: int) -> None:
    """The mirrored variant has a process of its own; what it spends there is not the caller's."""
    experiments = {
        "off": {"split": {"spin": 1}},
        "on": {"split": {"spin": 1}, "mirror": {"variants": ["spin-twin"]}},
        "tenth": {"split": {"spin": 1}, "mirror": {"variants": ["spin-twin"], "share": 0.1}},
    }
    with serving(experiments, doors=1, batch=8) as running:
        caller = Caller(running.http_port)
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in experiments}
        for block in range(blocks):
            names = list(experiments)
            for name in names if block % 2 == 0 else reversed(names):
                found[name].append(_block(running, caller, name, num_requests))
        path = {name: statistics.median(run[0] for run in runs) for name, runs in found.items()}
        say(
            "mirror",
            model=f"{1e3 * RAW['spin']:g} ms of CPU a request",
            caller_path_cpu_us={name: round(value, 1) for name, value in path.items()},
            added={name: round(path[name] / path["off"] - 1, 4) for name in experiments},
            door_cpu_us={
                name: round(statistics.median(run[1] for run in runs), 1)
                for name, runs in found.items()
            },
            p50_ms={
                name: round(1e3 * statistics.median(run[2] for run in runs), 3)
                for name, runs in found.items()
            },
            agreement=caller.shown("on")["arms"][1]["agreement"],
        )


def _block(
    running: Running, caller: Caller, name: str, num_requests: int
) -> tuple[float, float, float]:
    """CPU microseconds a request of door and own replica, of the door alone, and p50 seconds."""
    watched = running.watched()
    before, taken_s = watched.read(), []
    for x in range(num_requests):
        began_s = time.perf_counter()
        status, _, _ = caller.infer(name, x)
        taken_s.append(time.perf_counter() - began_s)
        assert status == 200
    costs = cpu_us_per_request(before, watched.read(), num_requests)
    door, replica = costs["replica gateway"], costs["replica variant-spin"]
    return door + replica, door, statistics.median(taken_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["verdicts", "kills", "mirror"])
    parser.add_argument("--callers", type=int, default=6)
    parser.add_argument("--only", nargs="*", default=[], help="experiments of `verdicts`")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--every-s", type=float, default=20.0)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--requests", type=int, default=500)
    asked = parser.parse_args()
    match asked.what:
        case "verdicts":
            verdicts(asked.callers, asked.only)
        case "kills":
            kills(asked.callers, asked.kills, asked.every_s)
        case _:
            mirror(asked.blocks, asked.requests)


if __name__ == "__main__":
    main()
