"""A door's requests that belong to sequences."""

from __future__ import annotations

from collections.abc import Callable

from actors.delivery.dispatchers import Place, place_of, places_of
from actors.sequences.affinity import Replicas, SequenceDispatcher
from cluster.errors import InvalidRequest, Unsupported
from cluster.protocols.envelope import Call, Reply
from cluster.requests import InferenceRequest, sequence_of
from cluster.routing.table import RoutingTable, VariantRoute

MakeSequences = Callable[[VariantRoute], Replicas]


class SequenceAnswers:
    """Of one front door."""

    def __init__(self, make_sequences: MakeSequences | None) -> None:
        self._make = make_sequences
        self._dispatchers: dict[Place, SequenceDispatcher] = {}
        self._leaving: list[SequenceDispatcher] = []

    def adopt(self, table: RoutingTable) -> None:
        """Sequences of what the table no longer names are lost with it; requests are answered."""
        for gone in self._dispatchers.keys() - places_of(table):
            self._leaving.append(self._dispatchers.pop(gone))

    def is_at_rest(self) -> bool:
        """See `Way.is_at_rest`."""
        self._leaving = [each for each in self._leaving if each.num_waiting]
        return not self._leaving

    async def run(
        self, route: VariantRoute, call: Call, request: InferenceRequest, deadline_s: float
    ) -> Reply:
        """Raises: InvalidRequest without an id; see `SequenceDispatcher.run`."""
        step = sequence_of(request.parameters)
        if step is None:
            raise InvalidRequest(
                f"inference request to model '{route.name}' must specify a non-zero or non-empty "
                "correlation ID"
            )
        call.sequence = step
        call.call_id = 1
        return await self._dispatcher(route).run(call, deadline_s=deadline_s)

    def _dispatcher(self, route: VariantRoute) -> SequenceDispatcher:
        found = self._dispatchers.get(place_of(route))
        if found is None:
            if self._make is None or route.sequences is None:
                raise Unsupported(f"this door reaches no sequences of '{route.name}'")
            found = self._dispatchers[place_of(route)] = SequenceDispatcher(
                self._make(route),
                idle_s=route.sequences.max_sequence_idle_us / 1e6,
                max_waiting=route.batching.max_queue_size,
            )
        return found
