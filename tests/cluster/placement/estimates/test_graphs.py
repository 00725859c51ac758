from __future__ import annotations

from cluster.placement.estimates.graphs import GraphNode, estimate_graph


def node(inputs: str, output: str, *, weight: int = 1, size: int = 10) -> GraphNode:
    return GraphNode(
        inputs=tuple(inputs.split()),
        outputs=(output,),
        output_bytes=(size,),
        flops=1.0,
        weight_bytes=weight,
    )


def test_a_chain_can_be_cut_after_every_node() -> None:
    chain = [node("x", "a", size=5), node("a", "b", size=6), node("b", "y")]

    layers = estimate_graph("m", chain, ["y"]).layers

    assert [layer.activation_bytes for layer in layers][:2] == [5, 6]
    assert len(layers) == 3


def test_a_residual_keeps_its_block_together() -> None:
    block = [node("x", "a"), node("a", "b", weight=3), node("a b", "c"), node("c", "y")]

    layers = estimate_graph("m", block, ["y"]).layers

    assert [layer.weight_bytes for layer in layers] == [1, 4, 1]


def test_nothing_of_a_graph_is_lost_by_cutting_it() -> None:
    block = [node("x", "a"), node("a", "b", weight=3), node("a b", "c"), node("c", "y")]

    facts = estimate_graph("m", block, ["y"])

    assert (facts.weight_bytes, facts.flops) == (6, 4.0)
    assert not facts.can_be_split


def test_the_widest_set_of_tensors_alive_at_once_is_counted_in_each_layer() -> None:
    block = [
        node("x", "a", size=5),
        node("a", "b", size=40),
        node("b", "c", size=7),
        node("a c", "d", size=5),
        node("d", "y", size=2),
    ]

    layers = estimate_graph("m", block, ["y"]).layers

    # Inside the block: a, b and c. Before it a alone, after it d and the answer.
    assert [layer.working_bytes for layer in layers] == [5, 5 + 40 + 7, 5 + 2]


def test_what_the_caller_gives_crosses_no_cut() -> None:
    masked = [node("x", "a"), node("a mask", "b"), node("b mask", "y")]

    assert len(estimate_graph("m", masked, ["y"]).layers) == 3
