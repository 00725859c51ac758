"""`squadron serve` for one thing at a time: a config without downloads, a file, a class."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.running import running, running_model

pytestmark = pytest.mark.e2e

USER_CODE = '''
import os
import numpy as np


class Triple:
    """y = 3 * x; 13 is code that raises, 99 is code that takes its process with it."""

    def load(self, context):
        self.factor = 3.0

    def infer(self, inputs):
        x = inputs["x"]
        if (x == 13).any():
            raise RuntimeError("unlucky")
        if (x == 99).any():
            os._exit(1)
        return {"y": (self.factor * x).astype(np.float32)}
'''


def ask(client: httpx.Client, model: str, values: list[float]) -> httpx.Response:
    tensor: dict[str, Any] = {
        "name": "x",
        "datatype": "FP32",
        "shape": [1, len(values)],
        "data": values,
    }
    return client.post(f"/v2/models/{model}/infer", json={"inputs": [tensor]})


def test_the_dev_config_computes_exactly_without_models_and_ctrl_c_leaves_nothing_behind(
    root: Path, tmp_path: Path
) -> None:
    with running(root / "serve_configs/dev.yaml", tmp_path) as started:
        with httpx.Client(base_url=started.http, timeout=30) as client:
            answer = ask(client, "echo", [1, 2, 3, 4])
        assert answer.json()["outputs"][0]["data"] == [3, 5, 7, 9]
        assert [model["name"] for model in started.ready["models"]] == ["echo"]

        below = psutil.Process(started.process.pid).children(recursive=True)
        os.kill(started.process.pid, signal.SIGINT)
        code = started.process.wait(60)
        _, alive = psutil.wait_procs(below, timeout=15)

        assert code in (0, 130)
        assert [process.name() for process in alive] == []


def test_user_code_that_raises_or_dies_harms_only_its_own_request(tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text(USER_CODE)
    shape = ["--input", "x:FP32:-1,2", "--output", "y:FP32:-1,2"]
    with (
        running_model(f"{code}:Triple", tmp_path, "--name", "triple", *shape) as started,
        httpx.Client(base_url=started.http, timeout=60) as client,
    ):
        assert ask(client, "triple", [1, 2]).json()["outputs"][0]["data"] == [3, 6]

        raised = ask(client, "triple", [13, 0])
        assert raised.status_code == 500
        assert "unlucky" in raised.json()["error"]
        assert "Traceback" not in raised.text

        assert ask(client, "triple", [99, 0]).status_code == 503
        assert ask(client, "triple", [2, 2]).json()["outputs"][0]["data"] == [6, 6]


def test_a_port_that_is_taken_is_named_before_anything_starts(root: Path, tmp_path: Path) -> None:
    import socket
    import subprocess
    import sys

    import yaml

    content = yaml.safe_load((root / "serve_configs/dev.yaml").read_text())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        content["applications"][0]["args"]["server"] = {"http": {"port": port}}
        (tmp_path / "taken.yaml").write_text(yaml.safe_dump(content))
        started_s = time.monotonic()
        done = subprocess.run(
            [Path(sys.executable).with_name("squadron"), "serve", tmp_path / "taken.yaml"],
            capture_output=True,
            text=True,
        )

    assert done.returncode == 2
    assert f"server.http.port: cannot listen on 127.0.0.1:{port}" in done.stderr
    assert time.monotonic() - started_s < 30
