"""A door's dispatchers: one a variant and deployment, made when the first request comes."""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import partial
from typing import NamedTuple, Protocol

from actors.delivery.dispatch import Dispatcher
from actors.delivery.queue_tally import QueueTally
from actors.delivery.transport import Transport
from cluster.observability.metrics import Metrics
from cluster.routing.table import RoutingTable, VariantRoute
from cluster.scheduling.policy import policy_of

MakeTransport = Callable[[VariantRoute], Transport]
"""A variant -> the way to its replicas."""
Place = tuple[str, str]
"""A variant's name and its deployment's."""


class Way(Protocol):
    """One of a door's ways to the replicas."""

    def adopt(self, table: RoutingTable) -> None:
        """Let go of what the table no longer names."""

    def is_at_rest(self) -> bool:
        """No request is under way to a deployment that the table no longer names."""
        ...


class Arrivals(NamedTuple):
    """Requests for a variant since its first one, and the rows that are here now."""

    num_submitted: int
    rows_waiting: int
    rows_under_way: int


class Dispatchers:
    """Lives on the door's loop."""

    def __init__(self, make_transport: MakeTransport, metrics: Metrics) -> None:
        self.refused = QueueTally(metrics.door)
        self._make_transport = make_transport
        self._retries = metrics.retries
        self._known: dict[Place, Dispatcher] = {}
        self._leaving: list[Dispatcher] = []

    def of(self, route: VariantRoute) -> Dispatcher:
        found = self._known.get(place_of(route))
        if found is None:
            retries = self._retries.labels(route.name)
            found = self._known[place_of(route)] = Dispatcher(
                self._make_transport(route),
                policy_of(route.batching, is_batched=route.facts.is_batched),
                window_rows=_window_rows(route),
                on_retry=retries.inc,
                on_refusal=partial(self.refused.refuse, route.name),
            )
        return found

    def adopt(self, table: RoutingTable) -> None:
        """Windows follow the replicas; what the table no longer names finishes and is let go."""
        routes = [route for route in table.routes.values() if isinstance(route, VariantRoute)]
        for route in routes:
            if place_of(route) in self._known:
                self._known[place_of(route)].window_rows = _window_rows(route)
        for gone in self._known.keys() - places_of(table):
            self._leaving.append(self._known.pop(gone))

    def is_at_rest(self) -> bool:
        """No request is under way to a deployment that the table no longer names."""
        self._leaving = [each for each in self._leaving if not each.is_idle]
        return not self._leaving

    def load_of(self, variants: Set[str]) -> tuple[float, int]:
        """The fullest window of these variants (above 1: rows wait), and the rows that wait."""
        queues = [queue for (name, _), queue in self._known.items() if name in variants]
        parts = [(each.rows_waiting + each.rows_under_way) / each.window_rows for each in queues]
        return max(parts, default=0.0), sum(each.rows_waiting for each in queues)

    def arrivals(self) -> dict[str, Arrivals]:
        """By variant."""
        return {
            name: Arrivals(queue.num_submitted, queue.rows_waiting, queue.rows_under_way)
            for (name, _), queue in self._known.items()
        }

    def write_counts(self) -> None:
        self.refused.write([(name, queue) for (name, _), queue in self._known.items()])


def place_of(route: VariantRoute) -> Place:
    """A changed model has another deployment; models that a door holds share the door's."""
    return route.name, route.deployment


def places_of(table: RoutingTable) -> set[Place]:
    return {place_of(each) for each in table.routes.values() if isinstance(each, VariantRoute)}


def _window_rows(route: VariantRoute) -> int:
    """Two batches a replica: one computing, one ready behind it."""
    return max(1, route.num_replicas) * 2 * route.batching.max_batch_size
