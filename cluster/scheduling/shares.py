"""What each tenant of one priority level was served, and whose turn that makes it.

Source: "Fairness in Serving Large Language Models" (virtual token counter), arXiv 2401.00588; the
lift on waking is start-time fair queueing's: a counter never starts below the turn being served.
"""

from __future__ import annotations

MAX_REMEMBERED = 1024
"""Tenants without waiting requests whose counter is kept. Names come from callers, so the memory
they take is bounded; a forgotten tenant is forgiven what it was ahead."""


class Shares:
    """Counters in units of weight (rows or tokens).

    While two tenants both wait in one lane, what they were served differs by at most twice the
    heaviest request; each choice of a batch's shape adds at most one batch.
    """

    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self._waiting: dict[str, int] = {}
        self._waiting_rows: dict[str, int] = {}
        self._turn = 0.0

    @property
    def num_waiting_tenants(self) -> int:
        return len(self._waiting)

    def waiting_rows(self, tenant: str) -> int:
        return self._waiting_rows.get(tenant, 0)

    def served(self, tenant: str) -> float:
        return self._served.get(tenant, self._turn)

    def join(self, tenant: str, rows: int) -> None:
        """A request came. A tenant that slept gets no credit for it."""
        waiting = self._waiting.get(tenant)
        if waiting is None:
            self._waiting[tenant] = 1
            self._waiting_rows[tenant] = rows
            if self._served.get(tenant, -1.0) < self._turn:
                self._served[tenant] = self._turn
        else:
            self._waiting[tenant] = waiting + 1
            self._waiting_rows[tenant] += rows

    def leave(self, tenant: str, count: int, rows: int) -> None:
        """So many requests are no longer waiting, served or not."""
        waiting = self._waiting[tenant] - count
        if waiting:
            self._waiting[tenant] = waiting
            self._waiting_rows[tenant] -= rows
            return
        del self._waiting[tenant], self._waiting_rows[tenant]
        if not self._waiting:
            # A busy period is over: nobody waits whom a counter could be compared with.
            self._served.clear()
            self._turn = 0.0
        elif len(self._served) > len(self._waiting) + MAX_REMEMBERED:
            self._served = {name: self._served[name] for name in self._waiting}

    def charge(self, tenant: str, weight: float, last: float) -> None:
        """Requests of a waiting tenant are served, `weight` in all and `last` the last of them."""
        served = self._served[tenant] + weight
        self._served[tenant] = served
        self._turn = max(self._turn, served - last)
