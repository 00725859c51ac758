"""Callers that leave: what nobody waits for is not computed, by processes of its own."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e.running import Running, running

pytestmark = pytest.mark.e2e


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Running]:
    (tmp_path / "go").write_text("0")
    tensors = {"datatype": "FP32", "shape": [-1, 1]}
    card = {
        "name": "witness",
        "format": "python",
        "python_class": "tests.witness_model:Witness",
        "signature": {
            "inputs": [{"name": "x", **tensors}],
            "outputs": [{"name": "y", **tensors}],
        },
    }
    variant = {
        "card": card,
        "batching": {"max_batch_size": 4},
        "options": {"folder": str(tmp_path)},
    }
    app = {
        "name": "squadron",
        "route_prefix": "/",
        "import_path": "actors.app:build",
        "args": {"variants": {"witness": variant}},
    }
    content = {"http_options": {"host": "127.0.0.1", "port": 0}, "applications": [app]}
    file = tmp_path / "leaving.yaml"
    file.write_text(yaml.safe_dump(content))
    with running(file, tmp_path) as started:
        yield started


def asking(served: Running, *values: int) -> socket.socket:
    """A caller who has asked for one row a value, and has not read the answer."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(values), 1], "data": values}
    body = json.dumps({"inputs": [tensor]}).encode()
    host, _, port = served.http_address.partition(":")
    caller = socket.create_connection((host, int(port)), timeout=60)
    head = f"POST /v2/models/witness/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    caller.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + body)
    return caller


def told(served: Running, metric: str, **labels: str) -> float:
    """A metric's value, summed over the lines with these labels."""
    wanted = [f'{name}="{value}"' for name, value in labels.items()]
    lines = httpx.get(f"{served.metrics}/metrics").text.splitlines()
    found = [line for line in lines if line.startswith(metric + "{")]
    return sum(
        float(line.rpartition(" ")[2]) for line in found if all(each in line for each in wanted)
    )


def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(1200):
        if holds():
            return
        time.sleep(0.05)
    raise TimeoutError


def test_one_of_many_in_an_envelope_leaves_and_is_not_computed(
    served: Running, tmp_path: Path
) -> None:
    """The replica is given two batches' worth of rows. What comes then waits at the door, and
    travels in one envelope as soon as there is room for it."""
    seen, go = tmp_path / "seen", tmp_path / "go"
    first = asking(served, 1, 2, 3, 4)
    eventually(lambda: seen.exists() and seen.read_text() == "1 2 3 4\n")
    second = asking(served, 5, 6, 7, 8)
    eventually(lambda: told(served, "squadron_door_rows_under_way", variant="witness") == 8)
    stays, leaves, other = (asking(served, value) for value in (10, 11, 12))
    eventually(lambda: told(served, "squadron_door_rows_waiting", variant="witness") == 3)
    go.write_text("1")
    eventually(lambda: told(served, "squadron_door_rows_waiting", variant="witness") == 0)
    eventually(lambda: seen.read_text() == "1 2 3 4\n5 6 7 8\n")

    leaves.close()
    eventually(
        lambda: told(served, "squadron_requests_total", model="witness", outcome="cancelled") == 1
    )
    go.write_text("9")

    for caller in (first, second, stays, other):
        with caller:
            assert caller.recv(64).startswith(b"HTTP/1.1 200")
    assert seen.read_text() == "1 2 3 4\n5 6 7 8\n10 12\n"
