"""Single weights become zero: of each layer, or of all together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch
from torch import nn

from cluster.engines.cache.artefact_cache import ArtefactCache
from cluster.errors import ConfigError
from cluster.optimization.pruning.weights import share_of_zeros, zeroed
from cluster.optimization.search.optimize import Wish, optimize
from cluster.optimization.search.recipe import Tuning
from cluster.optimization.training.lessons import Schedule
from tests.cluster.optimization.training.nets import accuracy, digit_data, trained_net


def zeros_of(layer: nn.Linear | nn.Conv2d) -> float:
    return float((layer.weight == 0).float().mean())


def test_local_takes_the_share_of_every_layer() -> None:
    sparse = zeroed(trained_net(), ratio=0.5, is_global=False)

    assert share_of_zeros(sparse) == pytest.approx(0.5, abs=0.001)
    assert zeros_of(sparse.head) == pytest.approx(0.5, abs=0.001)
    assert accuracy(sparse, digit_data()) > 0.9
    assert share_of_zeros(trained_net()) == 0


def test_global_takes_the_smallest_of_all() -> None:
    net = trained_net()
    sparse = zeroed(net, ratio=0.5, is_global=True)

    assert share_of_zeros(sparse) == pytest.approx(0.5, abs=0.001)
    assert abs(zeros_of(sparse.head) - 0.5) > 0.05
    kept = sparse.hidden.weight != 0
    assert torch.equal(sparse.hidden.weight[kept], net.hidden.weight[kept])
    assert float(net.hidden.weight[~kept].abs().max()) <= float(
        sparse.hidden.weight[kept].abs().min()
    )


def test_zeros_stay_zero_through_training_and_export(tmp_path: Path) -> None:
    report = optimize(
        trained_net(),
        Wish(
            recipes=("onnxruntime-fp32-pruned-weights",),
            data=digit_data(),
            num_rounds=2,
            measure_memory=False,
            tuning=Tuning(prune_ratio=0.6, schedule=Schedule(steps=20)),
        ),
        cache=ArtefactCache(tmp_path),
    )

    made = report.candidates[1]
    assert made.variant is not None, made.reason
    graph = onnx.load(made.variant.folder / "model.onnx").graph
    weights = [onnx.numpy_helper.to_array(each) for each in graph.initializer]
    large = [each for each in weights if each.ndim == 2 and each.size > 10_000]
    assert large
    assert all(np.mean(each == 0) == pytest.approx(0.6, abs=0.01) for each in large)


def test_a_net_without_layers_to_prune_is_refused() -> None:
    with pytest.raises(ConfigError, match="no linear layer and no convolution"):
        zeroed(nn.Sequential(nn.ReLU()), ratio=0.5, is_global=False)
