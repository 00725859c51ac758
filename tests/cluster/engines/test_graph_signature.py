from __future__ import annotations

from pathlib import Path

import pytest

from cluster.engines.graph_signature import GraphTensor, check_graph_inputs, check_graph_outputs
from cluster.errors import ConfigError
from cluster.tensors import TensorSpec

FILE = Path("store/m/1/model.onnx")


def spec(*shape: int) -> TensorSpec:
    return TensorSpec(name="x", datatype="FP32", shape=shape)


def graph(
    *shape: int, name: str = "x", datatype: str = "FP32", is_known: bool = True
) -> GraphTensor:
    return GraphTensor(name=name, datatype=datatype, shape=shape if is_known else None)


def test_a_graph_that_allows_all_that_the_card_promises_is_taken() -> None:
    check_graph_inputs([spec(-1, 4)], [graph(-1, -1)], FILE)
    check_graph_inputs([spec(-1, 4)], [graph(is_known=False)], FILE)
    check_graph_outputs([spec(-1, 4)], [graph(-1, 4), graph(1, name="more")], FILE)
    check_graph_outputs([spec(-1, 4)], [graph(8, 4)], FILE)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([graph(-1, 4, datatype="FP16")], "FP32 in the card, FP16 in the artefact"),
        ([graph(-1, 4, datatype="seq(tensor)")], r"seq\(tensor\) in the artefact"),
        ([graph(-1, 5)], r"shape \[-1, 4\] in the card, \[-1, 5\] in the artefact"),
        ([graph(-1, 4, 1)], "shape"),
        ([graph(1, 4)], "dimension 0 is any size in the card and fixed to 1"),
        ([graph(-1, 4, name="image")], "input 'image': the artefact takes it, the card has none"),
        ([], "input 'x': the artefact takes "),
    ],
)
def test_an_input_that_is_not_the_cards_is_named(found: list[GraphTensor], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        check_graph_inputs([spec(-1, 4)], found, FILE)

    assert caught.value.details["file"] == str(FILE)


def test_an_output_that_the_graph_has_not_is_named() -> None:
    with pytest.raises(ConfigError, match="output 'x': the artefact gives logits"):
        check_graph_outputs([spec(-1, 4)], [graph(-1, 4, name="logits")], FILE)
