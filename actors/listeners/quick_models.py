"""Which models are asked the quick way, and by what their requests are read."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from actors.front_door import FrontDoor
from cluster.errors import SquadronError
from cluster.routing.table import EnsembleRoute
from cluster.tensors import Signature

Decoder = TypeVar("Decoder")
Made = TypeVar("Made", covariant=True)


class Make(Protocol[Made]):
    def __call__(
        self, model: str, signature: Signature, *, is_batched: bool, max_batch_size: int
    ) -> Made: ...


class QuickModels(Generic[Decoder]):
    """A decoder for each model that single variants of one signature answer; made once a model and
    table."""

    def __init__(self, door: FrontDoor, make: Make[Decoder]) -> None:
        self._door = door
        self._make = make
        self._known: dict[tuple[str, str], Decoder | None] = {}
        self._known_of = door.table

    def decoder(self, model: str, version: str) -> Decoder | None:
        """None for a model that nobody knows, and for one whose requests take a closer look."""
        if self._known_of is not self._door.table:
            self._known_of = self._door.table
            self._known = {}
        try:
            return self._known[model, version]
        except KeyError:
            return self._decoder(model, version)

    def _decoder(self, model: str, version: str) -> Decoder | None:
        try:
            route = self._door.route(model, version)
        except SquadronError:
            # Not remembered: names that callers invent would fill the memory.
            return None
        variants = self._door.table.variants_of(route.name)
        is_quick = (
            not isinstance(route, EnsembleRoute)
            and bool(route.signature.inputs)
            and all(variant.signature == route.signature for variant in variants)
            and not any(variant.sequences or variant.facts.is_decoupled for variant in variants)
        )
        found = None
        if is_quick:
            found = self._make(
                model,
                route.signature,
                is_batched=all(variant.facts.is_batched for variant in variants),
                max_batch_size=min(variant.batching.max_batch_size for variant in variants),
            )
        self._known[model, version] = found
        return found
