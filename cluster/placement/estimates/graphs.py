"""A graph of operators as a run of layers, cut where a single tensor goes across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.placement.search.facts import LayerFacts, ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphNode:
    """One operator, in an order in which it can be computed. `inputs`: tensors that other nodes or
    the caller give, not weights. `output_bytes`: of each of its outputs."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    output_bytes: tuple[int, ...]
    flops: float
    weight_bytes: int


def estimate_graph(
    kind: str, nodes: Sequence[GraphNode], outputs: Sequence[str], *, bits: int = 32
) -> ModelFacts:
    """Layers end at articulation points, where one tensor is all that the rest needs."""
    layers: list[LayerFacts] = []
    flops, weights, widest = 0.0, 0, 0
    for end, (crossing, alive) in enumerate(_alive(nodes, outputs), start=1):
        node = nodes[end - 1]
        flops += node.flops
        weights += node.weight_bytes
        widest = max(widest, alive)
        if crossing is not None or end == len(nodes):
            layers.append(
                LayerFacts(
                    flops=flops,
                    weight_bytes=weights,
                    activation_bytes=crossing or 0,
                    working_bytes=widest,
                    num_collectives=0,
                )
            )
            flops, weights, widest = 0.0, 0, 0
    return ModelFacts(
        kind=kind,
        layers=tuple(layers),
        can_be_split=False,
        weight_bits=bits,
        note=f"estimated from its graph, {len(layers)} places to cut",
    )


def _alive(nodes: Sequence[GraphNode], outputs: Sequence[str]) -> list[tuple[int | None, int]]:
    """Of each node: the bytes of the one tensor that crosses to the later ones, None where there
    are several; and all that is alive while it computes, its answer included. The caller's inputs
    cross nothing: every stage can be given them."""
    last_use = {name: len(nodes) for name in outputs}
    for index, node in enumerate(nodes):
        for name in node.inputs:
            last_use[name] = max(last_use.get(name, 0), index)
    live: dict[str, int] = {}
    found: list[tuple[int | None, int]] = []
    for index, node in enumerate(nodes):
        widest = sum(live.values()) + sum(node.output_bytes)
        for name, size in zip(node.outputs, node.output_bytes, strict=True):
            if last_use.get(name, -1) > index:
                live[name] = size
        for name in [name for name in live if last_use[name] <= index]:
            del live[name]
        found.append((next(iter(live.values())) if len(live) == 1 else None, widest))
    return found
