"""A shard killed or stopped under load: the group stops as one and is replaced in its shape."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.models, pytest.mark.timeout(400)]

RECOVERY_S = 150.0
"""Patience, not a promise: a process that imports PyTorch starts slowly on a busy machine."""


@pytest.fixture(scope="module", autouse=True)
def _both_replicas(sharded: Running) -> None:
    """Ready means that every model can answer: one replica of each is enough for that."""
    wait_until(
        lambda: [len(pids) for pids in shards(sharded, "pair").values()] == [2, 2],
        "no second replica",
    )


def shards(served: Running, model: str) -> dict[str, list[int]]:
    """The processes of each replica's shards by rank, by the replica's id."""
    found: dict[str, dict[int, int]] = {}
    for pid in served.pids(f"squadron:{model}:"):
        try:
            title = psutil.Process(pid).cmdline()[:1]
        except psutil.NoSuchProcess:
            title = []
        if not title:  # ended since it was listed, or nobody has waited for it yet
            continue
        _, _, replica, shard = title[0].split(":")
        found.setdefault(replica, {})[int(shard.removeprefix("shard"))] = pid
    return {replica: [pids[rank] for rank in sorted(pids)] for replica, pids in found.items()}


def events(served: Running, subject: str) -> dict[str, str]:
    """What happened to it -> why, in the order in which it was told."""
    told = httpx.get(f"{served.http}/admin/v1/events").raise_for_status().json()
    return {event["kind"]: event["reason"] for event in told if event["subject"] == subject}


class Load:
    """One caller after the other's answer, until told to stop."""

    def __init__(self, served: Running, model: str) -> None:
        self.statuses: Counter[int] = Counter()
        self.longest_s = 0.0
        self.without_retry_after = 0
        self.refusals: Counter[str] = Counter()
        self._url = f"{served.http}/v2/models/{model}/infer"
        image = np.zeros((1, 3, 224, 224), np.float32)
        self._body: dict[str, Any] = {
            "inputs": [
                {
                    "name": "image",
                    "datatype": "FP32",
                    "shape": image.shape,
                    "parameters": {"binary_data_size": image.nbytes},
                }
            ]
        }
        self._image = image.tobytes()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        import json

        head = json.dumps(self._body).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        with httpx.Client(timeout=120) as client:
            while not self._is_over.is_set():
                began_s = time.monotonic()
                answer = client.post(self._url, content=head + self._image, headers=headers)
                self.longest_s = max(self.longest_s, time.monotonic() - began_s)
                self.statuses[answer.status_code] += 1
                if answer.status_code != 200:
                    self.refusals[answer.text[:200]] += 1
                if answer.status_code == 503 and "retry-after" not in answer.headers:
                    self.without_retry_after += 1


def wait_until(is_so: Callable[[], bool], what: str) -> float:
    began_s = time.monotonic()
    while not is_so():
        assert time.monotonic() - began_s < RECOVERY_S, what
        time.sleep(0.05)
    return time.monotonic() - began_s


def hit(served: Running, model: str, signal_number: int) -> tuple[Load, float, list[int]]:
    """One shard of one replica gets a signal under load. Seconds to as many replicas as before,
    and the processes that its group had."""
    before = shards(served, model)
    replica, group = next(iter(before.items()))
    with Load(served, model) as load:
        wait_until(lambda: load.statuses[200] > 20, "no answers before the signal")
        os.kill(group[1], signal_number)
        recovered_s = wait_until(
            lambda: (
                len(now := shards(served, model)) == len(before)
                and replica not in now
                and all(len(pids) == 2 for pids in now.values())
            ),
            "no replacement in the same shape",
        )
        answered = load.statuses[200]
        wait_until(lambda: load.statuses[200] > answered + 20, "no answers afterwards")
    return load, recovered_s, group


def test_shards_are_named_by_model_replica_and_rank(sharded: Running) -> None:
    assert [len(pids) for pids in shards(sharded, "pair").values()] == [2, 2]
    assert [len(pids) for pids in shards(sharded, "only").values()] == [2]


def test_a_killed_shard_costs_no_answer_where_another_replica_is(sharded: Running) -> None:
    load, recovered_s, group = hit(sharded, "pair", signal.SIGKILL)

    print(f"kill -9 of a shard, two replicas: replaced after {recovered_s:.1f} s")
    assert set(load.statuses) == {200}, load.refusals
    wait_until(lambda: not any(map(psutil.pid_exists, group)), "a shard of the group lives on")


def test_a_killed_shard_of_the_only_replica_makes_callers_wait_or_come_again(
    sharded: Running,
) -> None:
    load, recovered_s, group = hit(sharded, "only", signal.SIGKILL)

    print(
        f"kill -9 of a shard, one replica: replaced after {recovered_s:.1f} s, "
        f"longest request {load.longest_s:.1f} s, {dict(load.statuses)}"
    )
    assert set(load.statuses) <= {200, 503}
    assert not load.without_retry_after
    # Whoever looks afterwards is told as well, with the seconds.
    wait_until(lambda: "recovered" in events(sharded, "only"), "no word of the recovery")
    told = events(sharded, "only")
    assert list(told) == ["lost", "recovered"]
    assert "0 of 1 replicas left" in told["lost"]
    assert "s after the loss: 1 replicas (" in told["recovered"]
    wait_until(lambda: not any(map(psutil.pid_exists, group)), "a shard of the group lives on")


def test_a_stopped_shard_is_found_by_its_silence(sharded: Running) -> None:
    load, recovered_s, group = hit(sharded, "pair", signal.SIGSTOP)

    print(f"SIGSTOP of a shard, two replicas: replaced after {recovered_s:.1f} s")
    assert set(load.statuses) == {200}, load.refusals
    wait_until(lambda: not any(map(psutil.pid_exists, group)), "a shard of the group lives on")
