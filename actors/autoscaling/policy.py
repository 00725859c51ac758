"""The policy that Ray Serve's controller asks about ten times a second.

Serve ships this module by value, so it holds nothing but the class and imports where it works.
"""

from __future__ import annotations

from typing import Any


class SquadronPolicy:
    """Gives the number that our autoscaler decided last; without one, what Serve has already.

    Never waits: a thread of the process talks to the autoscaler (`actors.autoscaling.exchange`).
    """

    def __init__(self, variant: str) -> None:
        self._variant = variant

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        from actors.autoscaling.exchange import exchange_of

        held = context.target_num_replicas
        # Models that can be unloaded are applications of their own, named after ours.
        exchange = exchange_of((context.app_name or "").partition("+")[0])
        exchange.tell(self._variant, context)
        return exchange.target(self._variant, held), {}
