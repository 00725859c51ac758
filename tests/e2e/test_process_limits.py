"""A model that takes more memory than it may loses its process; nobody else notices."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from tests.e2e.running import running

pytestmark = pytest.mark.e2e


def config(folder: Path, *, limit_mb: int) -> Path:
    number = [{"name": "mib", "datatype": "INT64", "shape": [-1, 1]}]
    held = [{"name": "held", "datatype": "INT64", "shape": [-1, 1]}]
    tensors = [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    result = [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}]
    variants = {
        "greedy": {
            "card": {
                "name": "greedy",
                "format": "python",
                "python_class": "tests.greedy_model:Greedy",
                "signature": {"inputs": number, "outputs": held},
            },
            "limits": {"memory_limit_mb": limit_mb, "nice": 5},
        },
        "echo": {
            "engine": "fake",
            "card": {
                "name": "echo",
                "format": "fake",
                "signature": {"inputs": tensors, "outputs": result},
            },
        },
    }
    file = folder / "limits.yaml"
    app = {
        "name": "squadron",
        "route_prefix": "/",
        "import_path": "actors.app:build",
        "args": {"variants": variants},
    }
    content = {"http_options": {"host": "127.0.0.1", "port": 0}, "applications": [app]}
    file.write_text(yaml.safe_dump(content))
    return file


def ask(http: str, model: str, **tensor: object) -> httpx.Response:
    body = {"inputs": [tensor]}
    return httpx.post(f"{http}/v2/models/{model}/infer", json=body, timeout=60)


def hold(http: str, mib: int) -> httpx.Response:
    return ask(http, "greedy", name="mib", datatype="INT64", shape=[1, 1], data=[mib])


def test_the_process_that_takes_too_much_is_replaced_and_no_other(tmp_path: Path) -> None:
    with running(config(tmp_path, limit_mb=1024), tmp_path) as server:
        (greedy,) = server.replica_pids("greedy")
        (echo,) = server.replica_pids("echo")
        assert psutil.Process(greedy).nice() >= 5
        first = hold(server.http, 1)
        assert first.json()["outputs"][0]["data"] == [1]

        # Answered or not, the process is ended for it.
        hold(server.http, 1500)
        psutil.wait_procs([psutil.Process(greedy)] if psutil.pid_exists(greedy) else [], 30)

        assert not psutil.pid_exists(greedy)
        same = ask(server.http, "echo", name="x", datatype="FP32", shape=[1, 4], data=[1, 2, 3, 4])
        assert same.json()["outputs"][0]["data"] == [3, 5, 7, 9]
        assert server.replica_pids("echo") == [echo]
        again = when_replaced(server.http)
        assert again.json()["outputs"][0]["data"] == [1], "a new process holds nothing yet"


def when_replaced(http: str) -> httpx.Response:
    """The first answer of the replacement. Raises: TimeoutError."""
    for _ in range(120):
        answer = hold(http, 1)
        if answer.status_code == 200:
            return answer
        time.sleep(0.5)
    raise TimeoutError(answer.text)
