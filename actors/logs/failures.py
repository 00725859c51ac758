"""Why a model fails, in the log of the process that holds it.

Its callers are told in one line; who looks after the server needs the traceback, and once: a model
that fails every request would fill a disk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from cluster.errors import ReplicaError, SquadronError
from cluster.protocols.envelope import Call

EVERY_S = 10.0
_TRACE_ID = slice(3, 35)
"""Of a `traceparent`."""

logger = logging.getLogger("squadron.engine")


class Failures:
    """Of one variant in one process; called from one thread at a time."""

    def __init__(self, variant: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._variant = variant
        self._clock = clock
        self._told_s = -EVERY_S
        self._num_untold = 0

    def tell(self, error: Exception, call: Call) -> None:
        """What the caller did wrong is no failure of the model."""
        if isinstance(error, SquadronError) and not isinstance(error, ReplicaError):
            return
        now_s = self._clock()
        if now_s - self._told_s < EVERY_S:
            self._num_untold += 1
            return
        others = f"; {self._num_untold} more since the last such line" if self._num_untold else ""
        self._told_s, self._num_untold = now_s, 0
        named = {"request_id": call.request_id, "trace_id": call.trace[_TRACE_ID]}
        logger.error(
            "%s failed: %s%s",
            self._variant,
            error if isinstance(error, SquadronError) else type(error).__name__,
            others,
            exc_info=error,
            extra={"squadron": named},
        )
