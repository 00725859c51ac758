"""How often a member may be asked twice."""

from __future__ import annotations

SHARE = 0.05
MAX_SAVED = 5.0


class HedgeBudget:
    """One second asking for every twenty requests, a few saved up at most, so that a member that is
    slow because it is overloaded is not asked twice as often.

    Source: Dean and Barroso 2013, "The tail at scale": hedges limited to 5 % of the requests.
    """

    def __init__(self) -> None:
        self._saved = MAX_SAVED

    def earn(self) -> None:
        """A request was asked."""
        self._saved = min(MAX_SAVED, self._saved + SHARE)

    def spend(self) -> bool:
        """Whether one may be asked twice now."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
