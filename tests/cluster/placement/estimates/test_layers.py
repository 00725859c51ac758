from __future__ import annotations

from cluster.placement.estimates.layers import of_layers
from cluster.placement.partition import LayeredModel


def test_layers_keep_their_bytes_and_count_two_operations_a_multiplication() -> None:
    model = LayeredModel(num_layers=2, layer_bytes=(100, 300), layer_cost=(5.0, 7.0))

    facts = of_layers("m", model)

    assert (facts.weight_bytes, facts.flops) == (400, 24.0)
    assert len(facts.layers) == 2
    assert not facts.can_be_split
