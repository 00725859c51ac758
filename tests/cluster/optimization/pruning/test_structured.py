"""Channels are taken out whole, and what is left answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from cluster.engines.cache.artefact_cache import ArtefactCache
from cluster.errors import ConfigError
from cluster.optimization.pruning.outputs import output_layers
from cluster.optimization.search.optimize import Wish, optimize
from cluster.optimization.search.recipe import Tuning
from cluster.optimization.training.lessons import Schedule
from tests.cluster.optimization.tiny_nets import TinyCnn, TinyMlp
from tests.cluster.optimization.training.nets import digit_data, trained_net

pytest.importorskip("torch_pruning", reason="torch-pruning is not installed")

from cluster.optimization.pruning.structured import num_weights, pruned


@pytest.mark.parametrize("is_global", [False, True])
def test_tensors_shrink_and_the_output_keeps_its_shape(is_global: bool) -> None:
    net = TinyCnn(width=32)

    thin = pruned(net, net.example_inputs(), ratio=0.5, is_global=is_global)

    assert num_weights(thin) < 0.5 * num_weights(net)
    assert thin.second.in_channels == thin.first.out_channels == thin.norm.num_features
    assert thin.head.in_features == thin.second.out_channels < 64
    assert thin.second.out_channels % 8 == 0
    with torch.no_grad():
        assert thin(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
    assert net.first.out_channels == 32, "the caller's module stays as it was"


class Encoder(nn.Module):
    """A residual stream, an attention cut into heads, a hidden layer that can be thinner."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.norm = nn.LayerNorm(32)
        self.up, self.down = nn.Linear(32, 128), nn.Linear(128, 32)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        answer: torch.Tensor = x + self.down(torch.relu(self.up(self.norm(x))))
        return answer


def test_of_a_transformer_only_the_hidden_units_go() -> None:
    example = {"x": np.zeros((1, 5, 32), np.float32)}

    thin = pruned(Encoder(), example, ratio=0.5, is_global=False)

    assert (thin.up.out_features, thin.down.in_features) == (64, 64)
    assert thin.down.out_features == 32
    assert thin.attention.embed_dim == 32


def test_the_layers_behind_the_outputs_are_found_through_norms_and_sums() -> None:
    net = Encoder()

    found = output_layers(net, [torch.zeros(1, 5, 32)])

    assert net.down in found
    assert net.up not in found


def test_what_has_nothing_to_spare_says_so() -> None:
    net = nn.Sequential(nn.Linear(4, 4))

    with pytest.raises(ConfigError, match="no layer has 8 channels to spare"):
        pruned(net, {"x": np.zeros((1, 4), np.float32)}, ratio=0.5, is_global=False)


@pytest.mark.parametrize("ratio", [0, 1, -0.5])
def test_a_ratio_that_is_no_share_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="prune_ratio is"):
        pruned(TinyMlp(), TinyMlp().example_inputs(), ratio=ratio, is_global=False)


def test_the_search_prunes_trains_and_lets_the_gate_judge(tmp_path: Path) -> None:
    def searched(ratio: float, steps: int):  # type: ignore[no-untyped-def]
        report = optimize(
            trained_net(),
            Wish(
                recipes=("onnxruntime-fp32", "onnxruntime-fp32-pruned-channels"),
                data=digit_data(),
                num_rounds=2,
                measure_memory=False,
                tuning=Tuning(
                    prune_ratio=ratio, schedule=Schedule(steps=steps, learning_rate=2e-3)
                ),
            ),
            cache=ArtefactCache(tmp_path),
        )
        return report.candidates[1:]

    whole, pruned_hard = searched(0.8, 1)
    assert pruned_hard.status == "failed the gate"
    assert "accuracy fell by" in pruned_hard.reason

    whole, taught = searched(0.3, 200)
    assert taught.verdict is not None
    assert taught.verdict.accuracy is not None
    assert taught.verdict.accuracy.change_points.value > -3
    assert taught.size_bytes < 0.6 * whole.size_bytes
    graph = onnx.load(taught.variant.folder / "model.onnx").graph
    widths = [each.dims[0] for each in graph.initializer if len(each.dims) == 4]
    assert max(widths) < 64
