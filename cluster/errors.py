"""Every error Squadron raises on purpose, grouped by who must act.

    SquadronError
    ├── RequestError      the caller must change the request; do not retry
    │   ├── InvalidRequest 400 · ModelNotFound 404 · UnknownRoute 404 · MethodNotAllowed 405
    │   ├── PayloadTooLarge 413 · Unauthorized 401 · Forbidden 403 · Unsupported 501
    │   ├── RegionNotFound 404 · RegionNotOpened 400 · AlreadyExists 400
    │   └── SequenceLost 409
    ├── CapacityError     wait, then retry (`retry_after_s`)
    │   └── Overloaded 503 · NoReadyReplica 503 · RateLimited 429 · DeadlineExceeded 504
    ├── ReplicaError      ours; the request may be run elsewhere only if nothing was sent
    │   └── ShardLost 503 · EngineFailed 500 · OutOfMemory 503
    └── ConfigError       the operator, at start: names file, key, value and what is allowed

Bugs are deliberately not in the tree: they become a 500 without details.

One positional message plus keyword details kept on the instance: that shape survives a Ray actor
boundary with its class intact (two positional fields, or a keyword-only field without a default,
arrive as `UnserializableException`).
"""

from __future__ import annotations

from typing import ClassVar

Detail = str | int | float | bool | None


class SquadronError(Exception):
    """Root of the tree. `details` holds plain values only, so that it can cross any boundary."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    is_retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: Detail) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.details))

    @property
    def retry_after_s(self) -> float | None:
        value = self.details.get("retry_after_s")
        return float(value) if isinstance(value, int | float) else None


def _rebuild(kind: type[SquadronError], message: str, details: dict[str, Detail]) -> SquadronError:
    return kind(message, **details)


class RequestError(SquadronError):
    """The caller must change the request."""

    code = "invalid_request"
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class InvalidRequest(RequestError):
    """Malformed body, wrong tensor name, datatype, shape or byte count."""


class ModelNotFound(RequestError):
    """No such model or version."""

    code = "model_not_found"
    http_status = 404
    grpc_status = "NOT_FOUND"


class UnknownRoute(RequestError):
    """No such path."""

    code = "unknown_route"
    http_status = 404
    grpc_status = "NOT_FOUND"


class MethodNotAllowed(RequestError):
    """The path exists; the HTTP method does not. Detail `allow`: methods for the `Allow` header."""

    code = "method_not_allowed"
    http_status = 405
    grpc_status = "UNIMPLEMENTED"


class PayloadTooLarge(RequestError):
    """Body above the configured limit (counted after decompression), or an answer above its own."""

    code = "payload_too_large"
    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"


class Unauthorized(RequestError):
    """No valid credentials."""

    code = "unauthorized"
    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class Forbidden(RequestError):
    """Credentials are valid, the action is not allowed to them."""

    code = "forbidden"
    http_status = 403
    grpc_status = "PERMISSION_DENIED"


class Unsupported(RequestError):
    """A part of the protocol that this server does not offer (or that is switched off)."""

    code = "unsupported"
    http_status = 501
    grpc_status = "UNIMPLEMENTED"


class RegionNotFound(RequestError):
    """No shared-memory region is registered under that name."""

    code = "region_not_found"
    http_status = 404
    grpc_status = "NOT_FOUND"


class RegionNotOpened(RequestError):
    """The shared-memory object behind a region is not there, or is not ours to open."""

    code = "region_not_opened"
    # Triton answers INTERNAL, and its clients' tests look at it; the fault is the caller's.
    grpc_status = "INTERNAL"


class AlreadyExists(RequestError):
    """The name is taken."""

    code = "already_exists"
    grpc_status = "ALREADY_EXISTS"


class SequenceLost(RequestError):
    """The replica that held a sequence's state is gone: the caller starts the sequence again."""

    code = "sequence_lost"
    http_status = 409
    grpc_status = "ABORTED"


class CapacityError(SquadronError):
    """Wait `retry_after_s`, then try again."""

    code = "unavailable"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    is_retryable = True


class Overloaded(CapacityError):
    """A queue is full."""

    code = "overloaded"


class NoReadyReplica(CapacityError):
    """The model is known and no replica of it can take work now."""

    code = "no_ready_replica"


class RateLimited(CapacityError):
    """The caller's own quota is spent."""

    code = "rate_limited"
    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(CapacityError):
    """The request's deadline passed while it was queued or running."""

    code = "deadline_exceeded"
    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"
    is_retryable = False


class ReplicaError(SquadronError):
    """A replica failed."""

    code = "replica_failed"


class ShardLost(ReplicaError):
    """A part of a sharded replica died: another replica, or its replacement, will answer."""

    code = "shard_lost"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    is_retryable = True

    @property
    def retry_after_s(self) -> float | None:
        return super().retry_after_s or 1.0


class EngineFailed(ReplicaError):
    """The engine raised while it ran a batch."""

    code = "engine_failed"


class OutOfMemory(EngineFailed):
    """The engine had too little memory for a batch, be it of one request."""

    code = "out_of_memory"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    is_retryable = True


class ConfigError(SquadronError):
    """The operator must mend the configuration. Details: `file`, `key`, `value`, `allowed`."""

    code = "config"


def _tree(kind: type[SquadronError]) -> dict[str, type[SquadronError]]:
    found = {kind.__name__: kind}
    for child in kind.__subclasses__():
        found |= _tree(child)
    return found


ERRORS_BY_NAME = _tree(SquadronError)
"""Class name -> class, for errors that travel inside an envelope (not as a Ray exception)."""
