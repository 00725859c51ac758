"""Whether a batch is so cheap that handing it to a thread would cost more than running it."""

from __future__ import annotations

from cluster.scheduling.batch_cost import BatchCost

INLINE_S = 0.0003
"""The longest batch that may hold up the loop that serves the sockets. A hand-over to the engine's
thread and back costs 0.1 to 0.2 ms and two switches of Python's lock (measured on 2 cores)."""


def is_inline(curve: BatchCost, rows: int) -> bool:
    """`curve`: CPU time of one thread. Only what was measured counts: nothing runs in the loop on
    a guess."""
    return curve.largest_rows >= rows and curve.safe_s(rows) <= INLINE_S
