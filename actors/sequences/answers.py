"""A door's requests that belong to sequences."""

from __future__ import annotations

from collections.abc import Callable

from actors.sequences.affinity import Replicas, SequenceDispatcher
from cluster.errors import InvalidRequest, Unsupported
from cluster.protocols.envelope import Call, Reply
from cluster.requests import InferenceRequest, sequence_of
from cluster.routing.table import VariantRoute

MakeSequences = Callable[[VariantRoute], Replicas]


class SequenceAnswers:
    """Of one front door."""

    def __init__(self, make_sequences: MakeSequences | None) -> None:
        self._make = make_sequences
        self._dispatchers: dict[str, SequenceDispatcher] = {}

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
        found = self._dispatchers.get(route.name)
        if found is None:
            if self._make is None or route.sequences is None:
                raise Unsupported(f"this door reaches no sequences of '{route.name}'")
            found = self._dispatchers[route.name] = SequenceDispatcher(
                self._make(route),
                idle_s=route.sequences.max_sequence_idle_us / 1e6,
                max_waiting=route.batching.max_queue_size,
            )
        return found
