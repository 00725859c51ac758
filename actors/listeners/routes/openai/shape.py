"""What every OpenAI route has in common: errors in OpenAI's shape, JSON bodies alone."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from actors.experiments.desk import is_tracking_id
from actors.listeners.http_messages import JSON, HttpReply, HttpRequest, HttpStream
from actors.listeners.routes.table import Handler, Place, Route
from cluster.errors import InvalidRequest, MethodNotAllowed, ModelNotFound, SquadronError
from cluster.protocols.openai.errors import error_body, error_headers

PREFIX = "/v1/"
REQUEST_ID = "x-request-id"


class Told(Exception):
    """An error of a request that got as far as an arm: `headers` tell the caller which."""

    def __init__(self, error: SquadronError, headers: Sequence[tuple[str, str]]) -> None:
        super().__init__(error.message)
        self.error = error
        self.headers = tuple(headers)


def openai_error(error: SquadronError, told: Sequence[tuple[str, str]] = ()) -> HttpReply:
    """`{"error": {…}}` with the error's status, and the headers `told`."""
    if isinstance(error, ModelNotFound) and "param" not in error.details:
        error = ModelNotFound(error.message, **{**error.details, "param": "model"})
    headers = (*told, *error_headers(error))
    if isinstance(error, MethodNotAllowed):
        headers += (("Allow", str(error.details.get("allow", ""))),)
    return HttpReply(status=error.http_status, chunks=(error_body(error),), headers=headers)


def check_json(request: HttpRequest) -> None:
    """Raises: InvalidRequest for a body that says it is something else."""
    sent = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if sent != JSON:
        raise InvalidRequest(f"Content-Type must be {JSON}, got {sent[:60]!r}")


def described(path: str, answer: Handler, summary: str, *, method: str = "POST") -> Route:
    return Route(method=method, path=path, answer=_shaped(answer), summary=summary, is_openai=True)


def _shaped(answer: Handler) -> Handler:
    async def shaped(request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        try:
            reply = await answer(request, place)
        except Told as found:
            reply = openai_error(found.error, found.headers)
        except SquadronError as error:
            reply = openai_error(error)
        return _with_request_id(reply, request)

    return shaped


def _with_request_id(reply: HttpReply | HttpStream, request: HttpRequest) -> HttpReply | HttpStream:
    """Every answer has one, errors too: `openai` clients show it with what went wrong."""
    if not any(name.lower() == REQUEST_ID for name, _ in reply.headers):
        sent = request.headers.get(REQUEST_ID, "")
        found = sent if is_tracking_id(sent) else uuid.uuid4().hex
        reply.headers = (*reply.headers, (REQUEST_ID, found))
    return reply
