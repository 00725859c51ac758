"""Errors in the shape that `openai` clients read.

`{"error": {"message", "type", "param", "code"}}`. Details `param` and `openai_code` of an error of
ours say which field it is about and what clients may compare. Source: API reference, "Errors".
"""

from __future__ import annotations

import orjson

from cluster.errors import CapacityError, ModelNotFound, PayloadTooLarge, SquadronError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


def error_object(error: SquadronError) -> dict[str, object]:
    status = error.http_status
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    code = error.details.get("openai_code")
    if code is None and isinstance(error, CapacityError | ModelNotFound | PayloadTooLarge):
        code = error.code
    return {
        "error": {
            "message": error.message,
            "type": kind,
            "param": error.details.get("param"),
            "code": code,
        }
    }


def error_body(error: SquadronError) -> bytes:
    return orjson.dumps(error_object(error))


def error_headers(error: SquadronError) -> tuple[tuple[str, str], ...]:
    """`Retry-After` where waiting helps; no retry of what a deadline ended, as it would only be
    too slow once more (openai-python retries every status from 500 on)."""
    headers: list[tuple[str, str]] = []
    if error.code == "deadline_exceeded":
        headers.append(("x-should-retry", "false"))
    elif error.retry_after_s is not None:
        headers.append(("Retry-After", str(max(1, round(error.retry_after_s)))))
    return tuple(headers)
