"""Facts of a model that was looked at as a run of layers, for cutting it."""

from __future__ import annotations

from cluster.placement.partition import LayeredModel
from cluster.placement.search.facts import LayerFacts, ModelFacts


def of_layers(name: str, model: LayeredModel) -> ModelFacts:
    """Two operations a multiplication, of one row; what goes from layer to layer is not known."""
    return ModelFacts(
        kind=f"{name}/layers",
        layers=tuple(
            LayerFacts(flops=2.0 * cost, weight_bytes=size, num_collectives=0)
            for cost, size in zip(model.layer_cost, model.layer_bytes, strict=True)
        ),
        can_be_split=False,
        weight_bits=32,
        note=f"estimated from its graph, {model.num_layers - 1} places to cut",
    )
