"""Waiting for a server's job through whatever happens to the server."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from cluster.client.remote.coding import Answer, Body
from cluster.client.remote.jobs import run_job
from cluster.errors import EngineFailed, ModelNotFound, NoReadyReplica, SquadronError

RUNNING = {"id": "a", "state": "running", "reason": "", "steps": ["open the model"]}
DONE = {**RUNNING, "state": "succeeded", "result": {"report": 1}}


class Telling:
    """A server that tells of a job what stands in `told`, one thing a time."""

    def __init__(self, *told: dict[str, Any] | SquadronError) -> None:
        self.told = list(told)
        self.sent: list[str] = []

    def send(self, method: str, path: str, body: Body) -> Answer:
        self.sent.append(method)
        return Answer(status=200, headers={}, content=b"{}")

    def get(self, path: str) -> Answer:
        told = self.told.pop(0)
        if isinstance(told, SquadronError):
            raise told
        return Answer(status=200, headers={}, content=orjson.dumps(told))


def run(server: Telling) -> dict[str, Any]:
    content = {"kind": "profile", "model": "m"}
    return run_job(server, content, wait=lambda seconds: None)[1]  # type: ignore[arg-type]  # a fake


def test_a_server_that_is_away_for_a_moment_costs_no_job() -> None:
    server = Telling(RUNNING, NoReadyReplica("refused"), NoReadyReplica("refused"), DONE)

    assert run(server) == {"report": 1}
    assert server.sent == ["POST"]


def test_a_job_that_the_server_has_lost_is_told_as_lost() -> None:
    with pytest.raises(EngineFailed, match="the server has lost job"):
        run(Telling(RUNNING, ModelNotFound("there is no job 'a'")))


def test_a_caller_that_stops_waiting_ends_the_job() -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    server = Telling(RUNNING)
    with pytest.raises(KeyboardInterrupt):
        run_job(server, {"kind": "profile", "model": "m"}, wait=stop)  # type: ignore[arg-type]

    assert server.sent == ["POST", "DELETE"]
