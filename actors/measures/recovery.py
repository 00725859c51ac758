"""Losses of replicas and the seconds until they are replaced: event, log line and metric."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping

import ray

from cluster.control.reconcile import DeploymentSeen
from cluster.control.recovery import Recoveries, Told
from cluster.routing.table import RoutingTable, VariantRoute

TELL_S = 0.5
"""Longest time that a replica which ends spends on saying so: its callers wait for its end."""

logger = logging.getLogger("squadron.controller")

Note = Callable[[str, str, str], None]
"""Keeps an event: kind, subject, reason."""


class RecoveryWatch:
    """The controller's. `observe`: keeps a variant's seconds; `clock`: seconds that only grow."""

    def __init__(
        self, app: str, observe: Callable[[str, float], None], clock: Callable[[], float]
    ) -> None:
        self._app = app
        self._observe = observe
        self._clock = clock
        self._recoveries = Recoveries()

    @property
    def is_open(self) -> bool:
        return self._recoveries.is_open

    def lost(self, variant: str, replica: str, reason: str, note: Note) -> None:
        self._tell(self._recoveries.lost(variant, replica, reason, self._clock()), note)

    def look(
        self,
        seen: Mapping[str, Mapping[str, DeploymentSeen]],
        table: RoutingTable | None,
        note: Note,
    ) -> None:
        """`seen`: application -> deployment, as Serve has them now."""
        if table is None:
            return
        deployments = {
            name: found
            for name, route in table.routes.items()
            if isinstance(route, VariantRoute)
            and (found := seen.get(route.app or self._app, {}).get(route.deployment)) is not None
        }
        self._tell(self._recoveries.step(deployments, self._clock()), note)

    def _tell(self, told: tuple[Told, ...], note: Note) -> None:
        for each in told:
            note(each.kind, each.variant, each.reason)
            if each.kind == "recovered":
                self._observe(each.variant, each.seconds)


def tell_loss(controller: str, namespace: str, variant: str, replica: str, reason: str) -> None:
    """From a replica that is about to end its process; returns soon, heard or not."""

    def tell() -> None:
        # Without a controller nobody keeps it: Serve's own word will have to do.
        with contextlib.suppress(Exception):
            actor = ray.get_actor(controller, namespace)
            ray.get(actor.lost.remote(variant, replica, reason), timeout=TELL_S)

    thread = threading.Thread(target=tell, name="tell-loss", daemon=True)
    thread.start()
    thread.join(TELL_S)
