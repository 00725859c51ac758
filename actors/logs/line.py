"""A request as the logs name it, while it lasts."""

from __future__ import annotations

import re
import time
from contextvars import ContextVar

from cluster.requests import Follower, InferenceRequest

MAX_TEXT = 256
"""Characters of what callers choose."""

_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Line:
    """`path` is an HTTP path or an RPC's name, `status` an HTTP status or a gRPC code, `key` the
    public id of the API key that was proved, also of one that is refused."""

    __slots__ = (
        "began_s", "bytes_in", "bytes_out", "inner", "key", "method", "model", "path",
        "request_id", "status", "tenant", "trace_id", "variant",
    )  # fmt: skip

    def __init__(
        self, method: str, path: str, *, request_id: str, tenant: str, trace_parent: str, size: int
    ) -> None:
        self.began_s = time.perf_counter()
        self.method = method
        self.path = path[: 4 * MAX_TEXT]
        self.model = ""
        self.variant = ""
        self.key = ""
        self.status: int | str = 0
        self.bytes_in = size
        self.bytes_out = 0
        self.request_id = request_id[:MAX_TEXT]
        self.tenant = tenant[:MAX_TEXT]
        found = _TRACE.match(trace_parent)
        self.trace_id = found[1] if found else ""
        self.inner: Follower | None = None

    def proved(self, key_id: str, owner: str) -> None:
        """Whose key came with the request; "" where it came with none that is known. Who says that
        it is somebody else's tenant is not believed here either."""
        self.key = key_id
        self.tenant = owner[:MAX_TEXT]

    def ended(self, request: InferenceRequest, variant: str, outcome: str) -> None:
        """See `Follower`."""
        self.variant = variant
        if self.inner is not None:
            self.inner.ended(request, variant, outcome)

    def fields(self) -> dict[str, str | int | float]:
        """Of a request that was answered. Units: milliseconds, bytes."""
        return {
            "method": self.method,
            "path": self.path,
            "model": self.model,
            "variant": self.variant,
            "status": self.status,
            "ms": round((time.perf_counter() - self.began_s) * 1000, 3),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "request_id": self.request_id,
            "trace_id": self.trace_id,
            "tenant": self.tenant,
            "key": self.key,
        }


LINE: ContextVar[Line | None] = ContextVar("squadron_line", default=None)
"""Of the request that is worked on; None where nobody asks for it."""
