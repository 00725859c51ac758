"""Work that a server's cluster does for the SDK: asked for, watched, taken home."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from threading import Event
from typing import Any
from urllib.parse import quote

import orjson

from cluster.client.backend import Backend
from cluster.client.remote.backend import HttpBackend
from cluster.client.remote.coding import JSON_LENGTH, Body, encode_call
from cluster.client.remote.http import HttpServer
from cluster.errors import (
    ERRORS_BY_NAME,
    CapacityError,
    DeadlineExceeded,
    EngineFailed,
    ModelNotFound,
    SquadronError,
    Unsupported,
)
from cluster.optimization.progress import Progress, Silent
from cluster.tensors import Array

JOBS = "/admin/v1/jobs"
FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 1.0
START_S = 120.0
LOST_S = 60.0
"""So long a server may be away, as while it is updated, before its job is given up."""

Wait = Callable[[float], None]

GIVEN_UP: ContextVar[Event | None] = ContextVar("GIVEN_UP", default=None)
"""Set where a job is waited for in a thread that no signal reaches: by whoever stops waiting."""


def wait_unless_given_up(seconds: float) -> None:
    """Raises: EngineFailed as soon as nobody waits any more."""
    given_up = GIVEN_UP.get()
    if given_up is None:
        time.sleep(seconds)
    elif given_up.wait(seconds):
        raise EngineFailed("nobody waits for the job any more")


def server_of(backend: Backend, what: str) -> HttpServer:
    """Raises: Unsupported over gRPC, which has no administration."""
    if isinstance(backend, HttpBackend):
        return backend.server
    raise Unsupported(
        f"{what} of a server's model is asked for over HTTP, by the server's admin API, which gRPC "
        "has not: load the model with Client('http://HOST:PORT', api_key=...)"
    )


def encode_job(content: Mapping[str, Any], inputs: Mapping[str, Array] | None) -> Body:
    """Tensors travel as those of an inference request do."""
    if not inputs:
        headers = {"Content-Type": "application/json"}
        return Body(content=orjson.dumps(dict(content)), headers=headers)
    call = encode_call(inputs, ())
    length = int(call.headers[JSON_LENGTH])
    entries = orjson.loads(call.content[:length])["inputs"]
    text = orjson.dumps({**content, "inputs": entries})
    headers = {**call.headers, JSON_LENGTH: str(len(text))}
    return Body(content=text + call.content[length:], headers=headers)


def run_job(
    server: HttpServer,
    content: Mapping[str, Any],
    inputs: Mapping[str, Array] | None = None,
    progress: Progress | None = None,
    wait: Wait = wait_unless_given_up,
) -> tuple[str, dict[str, Any]]:
    """Its id and its result, when it has ended. `progress` is told its steps.

    Whoever stops waiting (Ctrl-C) ends the job. Raises: what the server raises; the job's own error
    in its own class; EngineFailed for one that was cancelled, or that the server has lost.
    """
    job_id = secrets.token_hex(8)
    body = encode_job({**content, "id": job_id}, inputs)
    try:
        _submit(server, body, wait)
        return job_id, _result(_ended(server, job_id, progress or Silent(), wait))
    except BaseException:
        with suppress(SquadronError):  # what went wrong first is what is told
            cancel_job(server, job_id)
        raise


def cancel_job(server: HttpServer, job_id: str) -> dict[str, Any]:
    """The job as it is then; one that had ended stays what it was."""
    headers = {"Content-Type": "application/json"}
    body = Body(content=b"{}", headers=headers)
    found: dict[str, Any] = server.send("DELETE", f"{JOBS}/{quote(job_id, safe='')}", body).json()
    return found


def store_of_job(server: HttpServer, job_id: str, name: str) -> dict[str, Any]:
    """What a search chose, as the next version of `name` in the server's store: its card."""
    headers = {"Content-Type": "application/json"}
    body = Body(content=orjson.dumps({"name": name}), headers=headers)
    path = f"{JOBS}/{quote(job_id, safe='')}/store"
    found: dict[str, Any] = server.send("POST", path, body).json()
    return found


def _submit(server: HttpServer, body: Body, wait: Wait) -> None:
    """Asked again while no answer comes: under the same id that is the same job. The first of all
    waits for the actor that has them to be started."""
    until_s = time.monotonic() + START_S
    while True:
        try:
            server.send("POST", JOBS, body)
        except DeadlineExceeded:
            if time.monotonic() > until_s:
                raise
            wait(LONGEST_WAIT_S)
        else:
            return


def _ended(server: HttpServer, job_id: str, progress: Progress, wait: Wait) -> dict[str, Any]:
    num_told, wait_s = 0, FIRST_WAIT_S
    with ExitStack() as running:
        while True:
            job = _asked(server, job_id, wait)
            for step in job["steps"][num_told:]:
                running.close()
                running.enter_context(progress.step(str(step)))
                wait_s = FIRST_WAIT_S
            num_told = len(job["steps"])
            if job["state"] not in ("queued", "running"):
                return job
            wait(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def _asked(server: HttpServer, job_id: str, wait: Wait) -> dict[str, Any]:
    """Asked again while the server does not answer: the job goes on meanwhile.

    Raises: EngineFailed for a job that the server does not know any more.
    """
    until_s = time.monotonic() + LOST_S
    while True:
        try:
            found: dict[str, Any] = server.get(f"{JOBS}/{quote(job_id, safe='')}").json()
            return found
        except CapacityError:
            if time.monotonic() > until_s:
                raise
            wait(LONGEST_WAIT_S)
        except ModelNotFound:
            raise EngineFailed(
                f"the server has lost job {job_id}: what runs its jobs was started anew, or so "
                "many came after it that it was forgotten; ask again"
            ) from None


def _result(job: Mapping[str, Any]) -> dict[str, Any]:
    if job["state"] == "succeeded":
        found: dict[str, Any] = job["result"]
        return found
    error = job.get("error")
    if error is None:
        raise EngineFailed(f"job {job['id']} was cancelled: {job['reason']}")
    kind = ERRORS_BY_NAME.get(str(error["type"]), EngineFailed)
    raise kind(str(error["message"]))
