"""Protocol section 5.11: who disconnects is not worked for, queued or running, at any door."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc_client

from tests.conformance.checklist.conftest import Checked

pytestmark = [pytest.mark.e2e]


def eventually(holds: Callable[[], bool], what: str) -> None:
    for _ in range(600):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError(f"did not come true: {what}")


def becomes(asked: Callable[[], object], wanted: object) -> None:
    """The same for a value, which the failure shows."""
    for _ in range(600):
        if (found := asked()) == wanted:
            return
        time.sleep(0.05)
    assert found == wanted


def in_flight(checked: Checked) -> int:
    text = checked.http.get("/metrics").text
    found = re.search(r"^squadron_requests_in_flight (\S+)$", text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def ran(checked: Checked) -> set[int]:
    return {int(x) for x in (checked.folder / "ran").read_text().split()}


def by_socket(base: str, x: int) -> socket.socket:
    body = json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [x]}]}
    ).encode()
    head = (
        f"POST /v2/models/waiting/infer HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    host, port = base.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(head.encode() + body)
    return connection


def by_grpc(client: grpc_client.InferenceServerClient, x: int, answers: list[Any]) -> Any:
    given = grpc_client.InferInput("x", [1, 1], "FP32")
    given.set_data_from_numpy(np.array([[x]], np.float32))
    return client.async_infer(
        "waiting", [given], callback=lambda result, error: answers.append((result, error))
    )


@pytest.mark.slice
def test_what_vanished_callers_asked_for_is_not_run(checked: Checked) -> None:
    """One request runs and holds the engine; of those behind it, half lose their callers."""
    server = checked.server
    (checked.folder / "go").unlink(missing_ok=True)
    (checked.folder / "ran").unlink(missing_ok=True)
    answers: list[Any] = []
    with grpc_client.InferenceServerClient(server.grpc) as client:
        first = by_socket(server.http, 1)
        eventually((checked.folder / "ran").exists, "the first request runs")
        # The first of these waits in the replica, the others at the door.
        leaving = [by_socket(server.http, x) for x in (2, 3)]
        leaving.append(by_socket(server.second_door, 4))
        calls = [by_grpc(client, x, answers) for x in (5, 6)]
        staying = [by_socket(server.http, 7), by_socket(server.second_door, 8)]
        by_grpc(client, 9, answers)
        becomes(lambda: in_flight(checked), 9)

        for connection in leaving:
            connection.close()
        for call in calls:
            call.cancel()
        becomes(lambda: in_flight(checked), 4)
        (checked.folder / "go").touch()
        for connection in (first, *staying):
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
            connection.close()
        becomes(lambda: len(answers), 3)

    assert ran(checked) == {1, 7, 8, 9}
    errors = [str(error) for _, error in answers if error is not None]
    assert len(errors) == 2
    assert all("cancelled" in error.lower() for error in errors)


def test_a_running_request_that_is_past_its_time_is_answered_at_once(checked: Checked) -> None:
    (checked.folder / "go").unlink(missing_ok=True)
    given = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}
    body = {"inputs": [given], "parameters": {"timeout": 300_000}}

    over_http = checked.http.post("/v2/models/waiting/infer", json=body)
    with grpc_client.InferenceServerClient(checked.server.grpc) as client:
        tensor = grpc_client.InferInput("x", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.array([[2]], np.float32))
        with pytest.raises(Exception, match="Request timeout expired") as caught:
            client.infer("waiting", [tensor], timeout=300_000)
    (checked.folder / "go").touch()

    assert over_http.status_code == 504
    assert "Request timeout expired" in over_http.json()["error"]
    assert grpc.StatusCode.DEADLINE_EXCEEDED.name in str(caught.value)
    becomes(lambda: in_flight(checked), 0)


def test_the_second_door_keeps_the_limit_of_a_body(checked: Checked) -> None:
    limit = 8 * 2**20
    url = f"{checked.server.second_door}/v2/models/simple/infer"

    told = httpx.post(url, content=bytes(limit + 1), timeout=60)
    untold = httpx.post(url, content=iter([bytes(2**20)] * 9), timeout=60)

    for answer in (told, untold):
        assert answer.status_code == 413
        assert str(limit) in answer.json()["error"]
