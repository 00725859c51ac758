"""A model that takes more memory or cores than it may loses its process; nobody else notices."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import httpx
import psutil
import pytest

from tests.e2e.running import Running

pytestmark = pytest.mark.e2e


def ask(http: str, model: str, **tensor: object) -> httpx.Response:
    timeout_s = tensor.pop("timeout_s", 0)
    assert isinstance(timeout_s, int)
    body = {"inputs": [tensor], "parameters": {"timeout": timeout_s * 10**6}}
    return httpx.post(f"{http}/v2/models/{model}/infer", json=body, timeout=60)


def hold(http: str, mib: int) -> httpx.Response:
    return ask(http, "greedy", name="mib", datatype="INT64", shape=[1, 1], data=[mib])


def spin(http: str, seconds: float, *, timeout_s: int = 0) -> httpx.Response:
    tensor = {"name": "seconds", "datatype": "FP32", "shape": [1, 1], "data": [seconds]}
    return ask(http, "busy", timeout_s=timeout_s, **tensor)


def echo(served: Running) -> list[float]:
    answer = ask(served.http, "echo", name="x", datatype="FP32", shape=[1, 4], data=[1, 2, 3, 4])
    found: list[float] = answer.json()["outputs"][0]["data"]
    return found


def gone(pid: int, patience_s: float) -> bool:
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], patience_s)
    return not psutil.pid_exists(pid)


def test_the_process_that_takes_too_much_memory_is_replaced_and_no_other(served: Running) -> None:
    (greedy,) = served.replica_pids("greedy")
    others = served.replica_pids("echo")
    assert psutil.Process(greedy).nice() >= 5
    first = hold(served.http, 1)
    assert first.json()["outputs"][0]["data"] == [1]

    # Answered or not, the process is ended for it.
    hold(served.http, 1500)

    assert gone(greedy, 30)
    assert echo(served) == [3, 5, 7, 9]
    assert served.replica_pids("echo") == others
    again = when_replaced(partial(hold, served.http, 1))
    assert again.json()["outputs"][0]["data"] == [1], "a new process holds nothing yet"


def test_the_process_that_takes_too_many_cores_is_replaced_and_no_other(served: Running) -> None:
    (busy,) = served.replica_pids("busy")
    others = served.replica_pids("echo")
    assert spin(served.http, 0.01).json()["outputs"][0]["data"] == pytest.approx([0.01])

    # The caller gives up before the replacement would have to do the same.
    late = spin(served.http, 100, timeout_s=8)
    assert late.status_code == 504

    assert gone(busy, 60)
    assert echo(served) == [3, 5, 7, 9]
    assert served.replica_pids("echo") == others
    when_replaced(partial(spin, served.http, 0.01))


def when_replaced(again: Callable[[], httpx.Response]) -> httpx.Response:
    """The first answer of the replacement. Raises: TimeoutError."""
    for _ in range(120):
        answer = again()
        if answer.status_code == 200:
            return answer
        time.sleep(0.5)
    raise TimeoutError(answer.text)
