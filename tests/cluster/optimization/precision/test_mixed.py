"""Mixed precision: as much of the graph in int8 as the gate's limits let through."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from cluster.optimization.gate.gate import GateLimits
from cluster.optimization.precision.int8 import MAX_LEFT_OUT, mixed
from cluster.optimization.search.recipe import Material, operators_of
from tests.cluster.optimization.tiny_nets import TinyMlp, exported, rows


class Deep(TinyMlp):
    """Nine products, so that each of the eight stretches has one or two."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        layers = [each for _ in range(8) for each in (nn.Linear(64, 64), nn.Tanh())]
        self.layers = nn.Sequential(*layers, nn.Linear(64, 10))
        self.eval()


@pytest.mark.parametrize(("min_cosine", "left_out"), [(0.0, 1), (1.0, MAX_LEFT_OUT)])
def test_the_limits_say_how_much_stays_in_fp32(
    tmp_path: Path, min_cosine: float, left_out: int
) -> None:
    module = Deep()
    card = exported(module, tmp_path)
    inputs = rows(module, 16)
    material = Material(
        card=card,
        onnx=tmp_path / "model.onnx",
        calibration=tuple({"x": inputs["x"][i : i + 1]} for i in range(16)),
        operators=operators_of(tmp_path / "model.onnx"),
        limits=GateLimits(min_cosine=min_cosine, min_cosine_of_any=0, min_top1_agreement=0),
    )
    folder = tmp_path / "mixed"
    folder.mkdir()

    mixed(material, folder)

    graph = onnx.load(str(folder / "model.onnx")).graph
    plain = {each.name for each in graph.initializer if len(each.dims) == 2}
    in_fp32 = [
        node for node in graph.node if node.op_type in ("Gemm", "MatMul") and node.input[1] in plain
    ]
    # The first stretch holds two of the nine.
    assert len(in_fp32) in (left_out, left_out + 1)
