"""The jobs of the admin API: profiles and searches that run on the cluster beside its serving."""

from __future__ import annotations

from typing import Any

import orjson

from actors.front_door import FrontDoor
from actors.jobs.client import JobsClient
from actors.jobs.desk import ServedVariant
from actors.listeners.guard import guarded
from actors.listeners.http_messages import HttpReply, HttpRequest, json_reply
from actors.listeners.routes.extensions import json_object
from actors.listeners.routes.table import Handler, Place, Route
from cluster.control.jobs.request import check_served, job_request
from cluster.errors import InvalidRequest
from cluster.protocols.v2_json import decode_infer

JSON_LENGTH = "inference-header-content-length"


class JobRoutes:
    """Bound to one front door."""

    def __init__(self, door: FrontDoor, jobs: JobsClient) -> None:
        self._door = door
        self._jobs = jobs

    def routes(self) -> list[Route]:
        every, one = "/admin/v1/jobs", "/admin/v1/jobs/{name}"
        get, change = _get, _change
        return [
            get(every, self._list, "Every job, oldest first", "Jobs"),
            change("POST", every, self._submit, "Profile or optimise a model", "JobRequest", "Job"),
            get(one, self._job, "One job, with its result", "Job"),
            change("DELETE", one, self._cancel, "End a job", "", "Job"),
            change(
                "POST", f"{one}/store", self._store, "Add what a search chose to the store",
                "StoreName", "Stored",
            ),
        ]  # fmt: skip

    async def _list(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply(await self._jobs.jobs())

    async def _submit(self, request: HttpRequest, place: Place) -> HttpReply:
        content, json_length = _parts(request)
        asked = job_request(content)
        route = check_served(asked.model, self._door.table)
        variant = ServedVariant(name=route.name, version=route.facts.version)
        reply = json_reply(
            await self._jobs.submit(variant, content, bytes(request.body), json_length)
        )
        reply.status = 202
        return reply

    async def _job(self, request: HttpRequest, place: Place) -> HttpReply:
        job, result = await self._jobs.job(place.name)
        # The result is JSON already, and may be large.
        chunks = (orjson.dumps(job)[:-1], b',"result":', result or b"null", b"}")
        return HttpReply(status=200, chunks=chunks)

    async def _cancel(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply(await self._jobs.cancel(place.name))

    async def _store(self, request: HttpRequest, place: Place) -> HttpReply:
        content = json_object(request.body)
        name = content.get("name")
        if content.keys() != {"name"} or not isinstance(name, str):
            raise InvalidRequest('this takes {"name": the name in the store}')
        return json_reply(await self._jobs.add_to_store(place.name, name))


def _parts(request: HttpRequest) -> tuple[dict[str, Any], int | None]:
    """What the body says without its tensors, which are as in an inference request of the protocol,
    and the length of its JSON. Raises: InvalidRequest."""
    told = request.headers.get(JSON_LENGTH)
    if told is not None and not told.isdecimal():
        raise InvalidRequest(
            f"Inference-Header-Content-Length is {told[:20]!r}: a number is needed"
        )
    json_length = None if told is None else int(told)
    body = request.body
    if json_length is not None and not 0 < json_length <= len(body):
        raise InvalidRequest(
            f"Inference-Header-Content-Length must be from 1 to {len(body)}, got {json_length}"
        )
    content = json_object(bytes(body if json_length is None else body[:json_length]))
    if "inputs" in content:
        # They are decoded again where they are used; a wrong one is told to whoever sent it.
        decode_infer(body, json_length=json_length, model=str(content.get("model")), version="")
    elif json_length is not None and json_length != len(body):
        raise InvalidRequest("binary tensors came, and 'inputs' names none")
    return {key: value for key, value in content.items() if key != "inputs"}, json_length


def _get(path: str, answer: Handler, summary: str, gives: str) -> Route:
    answer = guarded(answer, changes=False)
    return Route(method="GET", path=path, answer=answer, summary=summary, gives=gives)


def _change(method: str, path: str, answer: Handler, summary: str, takes: str, gives: str) -> Route:
    return Route(
        method=method, path=path, answer=guarded(answer), summary=summary, takes=takes, gives=gives
    )
