"""What one copy of a model takes, in words: weights, caches, activations."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.placement.search.facts import Demand, LayerFacts
from cluster.placement.search.stages import alive
from cluster.units import human_bytes


def alive_bytes(demand: Demand) -> int:
    """Activations of the requests that are computed at once."""
    facts = demand.facts
    return facts.num_computed(demand.concurrency) * alive(facts.parts, 1)


def whole_bytes(demand: Demand) -> int:
    """All of it on one device."""
    facts = demand.facts
    return facts.weight_bytes + facts.kv_bytes * demand.concurrency + alive_bytes(demand)


def told_bytes(demand: Demand) -> str:
    """`7.5 GiB (6.9 GiB of weights, 0.5 GiB of caches for 4 sequences, …)`."""
    return told_kinds((demand,))


def told_kinds(demands: Sequence[Demand]) -> str:
    """The sum of one copy of each, with the parts that are more than a thousandth of it."""
    weights = sum(demand.facts.weight_bytes for demand in demands)
    caches = sum(demand.facts.kv_bytes * demand.concurrency for demand in demands)
    activations = sum(map(alive_bytes, demands))
    sequences = sum(demand.concurrency for demand in demands if demand.facts.kv_bytes)
    requests = sum(demand.facts.num_computed(demand.concurrency) for demand in demands)
    parts = [
        (weights, "weights"),
        (caches, f"caches for {_count(sequences, 'sequence')}"),
        (activations, f"activations of {_count(requests, 'request')} at once"),
    ]
    total = weights + caches + activations
    told = [f"{human_bytes(size)} of {what}" for size, what in parts if size * 1000 > total]
    return f"{human_bytes(total)} ({', '.join(told)})" if len(told) > 1 else "".join(told)


def layer_bytes(demand: Demand, part: LayerFacts) -> int:
    """A device that holds this layer and nothing else."""
    activations = demand.facts.num_computed(demand.concurrency) * alive((part,), 1)
    return part.weight_bytes + part.kv_bytes * demand.concurrency + activations


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
