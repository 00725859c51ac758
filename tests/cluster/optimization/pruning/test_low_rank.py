"""Low-rank layers really shrink, others stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cluster.engines.cache.artefact_cache import ArtefactCache
from cluster.errors import ConfigError
from cluster.optimization.pruning.low_rank import factorised
from cluster.optimization.search.optimize import Wish, optimize
from cluster.optimization.search.recipe import Tuning
from cluster.optimization.training.lessons import Schedule
from tests.cluster.optimization.tiny_nets import TinyMlp, rows
from tests.cluster.optimization.training.nets import digit_data, trained_net


def low_rank_mlp() -> TinyMlp:
    module = TinyMlp()
    middle = module.layers[2]
    assert isinstance(middle, torch.nn.Linear)
    with torch.no_grad():
        middle.weight.copy_(torch.randn(256, 8) @ torch.randn(8, 256) / 16)
    return module


def num_parameters(module: torch.nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def test_a_layer_of_low_rank_becomes_two_thin_ones_with_the_same_answers() -> None:
    module = low_rank_mlp()
    x = torch.from_numpy(rows(module, 16)["x"])

    thin, num_layers = factorised(module, energy=0.999)

    assert num_layers == 1
    assert num_parameters(module) - num_parameters(thin) >= 256 * 256 - 8 * 512
    with torch.no_grad():
        expected = module(x)
        torch.testing.assert_close(
            thin(x), expected, atol=0.05 * float(expected.abs().max()), rtol=0
        )
    assert isinstance(module.layers[2], torch.nn.Linear)


def test_layers_of_full_rank_are_left_alone() -> None:
    thin, num_layers = factorised(TinyMlp(), energy=0.999)

    assert num_layers == 0
    assert num_parameters(thin) == num_parameters(TinyMlp())


@pytest.mark.parametrize("energy", [0, 1.5, -1])
def test_an_energy_that_is_no_share_is_refused(energy: float) -> None:
    with pytest.raises(ConfigError, match="energy is"):
        factorised(TinyMlp(), energy=energy)


def test_the_search_splits_as_far_as_it_is_told_and_lets_the_gate_judge(tmp_path: Path) -> None:
    report = optimize(
        trained_net(),
        Wish(
            recipes=("onnxruntime-fp32", "onnxruntime-fp32-low-rank"),
            data=digit_data(),
            num_rounds=2,
            measure_memory=False,
            tuning=Tuning(rank_energy=0.9, schedule=Schedule(steps=40)),
        ),
        cache=ArtefactCache(tmp_path),
    )

    _, whole, thin = report.candidates
    assert thin.size_bytes < 0.8 * whole.size_bytes
    assert thin.verdict is not None, thin.reason
    assert thin.verdict.accuracy is not None
    assert thin.verdict.accuracy.change_points.value > -3
