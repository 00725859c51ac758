"""How many rows of copies fit beside a variant's own requests."""

from __future__ import annotations

import math
from dataclasses import dataclass

from actors.delivery.dispatchers import Arrivals
from cluster.routing.table import VariantRoute

LIVE_S = 10.0
"""Whoever was asked by a caller so lately is live: another request may come any moment."""


@dataclass(slots=True, kw_only=True)
class _Variant:
    num_copies: int = 0
    num_live: int = 0
    live_s: float = -math.inf


class Beside:
    """A variant that callers ask as well takes copies up to one batch a replica, so that a caller's
    request finds the other half of the window and an empty queue; one that only gets copies takes
    all of them."""

    def __init__(self) -> None:
        self._variants: dict[str, _Variant] = {}

    def room(self, route: VariantRoute, arrived: Arrivals | None, now_s: float) -> float:
        """Rows. `arrived`: what the door knows of the variant's requests, copies among them."""
        known = self._variants.setdefault(route.name, _Variant())
        if arrived is None:
            return math.inf
        num_live = arrived.num_submitted - known.num_copies
        if num_live > known.num_live:
            known.live_s = now_s
        # Less than before: copies failed before they were submitted.
        known.num_live = num_live
        if now_s - known.live_s > LIVE_S:
            return math.inf
        batch = max(1, route.num_replicas) * route.batching.max_batch_size
        return batch - arrived.rows_waiting - arrived.rows_under_way

    def sent(self, route: VariantRoute) -> None:
        """A copy more."""
        self._variants.setdefault(route.name, _Variant()).num_copies += 1
