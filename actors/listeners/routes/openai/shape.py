"""What every OpenAI route has in common: errors in OpenAI's shape, JSON bodies alone."""

from __future__ import annotations

from actors.listeners.http_messages import JSON, HttpReply, HttpRequest, HttpStream
from actors.listeners.routes.table import Handler, Place, Route
from cluster.errors import InvalidRequest, MethodNotAllowed, ModelNotFound, SquadronError
from cluster.protocols.openai.errors import error_body, error_headers

PREFIX = "/v1/"


def openai_error(error: SquadronError) -> HttpReply:
    """`{"error": {…}}` with the error's status."""
    headers = error_headers(error)
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
            return await answer(request, place)
        except ModelNotFound as error:
            if "param" in error.details:
                return openai_error(error)
            named = ModelNotFound(error.message, **{**error.details, "param": "model"})
            return openai_error(named)
        except SquadronError as error:
            return openai_error(error)

    return shaped
