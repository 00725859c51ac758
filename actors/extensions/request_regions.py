"""Shared memory as one request may use it: nothing is read that its model does not take, and no
more than what a door holds of all requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

from cluster.errors import PayloadTooLarge
from cluster.protocols.extensions.shared_memory import Regions
from cluster.protocols.v2_check import unexpected_input
from cluster.protocols.v2_fields import refuse_duplicates
from cluster.requests import RegionSlice
from cluster.routing.table import Route

RouteOf = Callable[[str, str], Route]
"""Of a model's version (empty: the one that answers). Raises: ModelNotFound."""


class Budget(Protocol):
    """Bytes that may be held at once."""

    limit_bytes: int

    def take(self, num_bytes: int) -> None:
        """Raises: Overloaded, with nothing taken."""

    def give(self, num_bytes: int) -> None: ...


class RequestRegions:
    """`of_caller` gives the regions that the caller may use; it is asked only at need. What is read
    counts against `budget` until the request is left."""

    def __init__(self, of_caller: Callable[[], Regions], route_of: RouteOf, budget: Budget) -> None:
        self.num_bytes = 0
        self._of_caller = of_caller
        self._route_of = route_of
        self._budget = budget
        self._names: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.give(self.num_bytes)

    def read_input(self, model: str, version: str, name: str, place: RegionSlice) -> bytes:
        """See `InputRegions.read_input`. Raises: ModelNotFound; InvalidRequest for an input that
        the model has not, or that was read before; PayloadTooLarge; Overloaded; what the caller's
        regions raise."""
        regions = self._of_caller()
        regions.check(place)
        signature = self._route_of(model, version).signature
        if signature.input(name) is None:
            raise unexpected_input(name, model, signature)
        refuse_duplicates([name, *self._names], "input")
        self._names.add(name)
        if self.num_bytes + place.byte_size > self._budget.limit_bytes:
            raise PayloadTooLarge(
                f"the inputs for model '{model}' that are in shared memory have more than "
                f"{self._budget.limit_bytes} bytes (limits.max_buffered_bytes)"
            )
        self._budget.take(place.byte_size)
        self.num_bytes += place.byte_size
        return regions.read(place)

    def check(self, place: RegionSlice) -> None:
        """See `InputRegions.check`."""
        self._of_caller().check(place)
