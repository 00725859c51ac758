"""Training that feels int8, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.engines.cache.artefact_cache import ArtefactCache
from cluster.errors import ConfigError
from cluster.optimization.search.optimize import Wish, optimize
from cluster.optimization.search.recipe import Tuning
from cluster.optimization.training.fake_int8 import rounded, trained
from cluster.optimization.training.lessons import Lessons, Schedule
from tests.cluster.optimization.training.nets import accuracy, digit_data, trained_net


def lessons() -> Lessons:
    taught = digit_data().taught()
    return Lessons(items=taught.items, labels=taught.labels, ranks_classes=True)


def test_while_rounded_every_channel_has_at_most_255_values_and_afterwards_its_own_again() -> None:
    net = trained_net()
    before = net.hidden.weight.clone()

    with rounded(net, lessons().items[:4]):
        values = [len(row.unique()) for row in net.hidden.weight]
        felt = net.hidden.weight.clone()

    assert max(values) <= 255
    step = before.abs().amax(1, keepdim=True) / 127
    assert bool(((felt - before).abs() <= step / 2 + 1e-7).all())
    assert torch.equal(net.hidden.weight, before)


def test_training_brings_the_rounded_answers_nearer_to_the_teachers() -> None:
    student, log = trained(trained_net(), lessons(), Schedule(steps=60))

    assert log.last < log.first
    assert accuracy(student, digit_data()) > 0.95


def test_a_net_without_products_is_refused() -> None:
    with pytest.raises(ConfigError, match="no linear layer and no convolution"):
        trained(torch.nn.Sequential(torch.nn.ReLU()), lessons(), Schedule(steps=1))


def test_the_search_trains_exports_judges_and_serves_int8(tmp_path: Path) -> None:
    from cluster.optimization.measure.variant import opened

    report = optimize(
        trained_net(),
        Wish(
            recipes=("onnxruntime-int8-trained",),
            data=digit_data(),
            num_rounds=2,
            measure_memory=False,
            tuning=Tuning(schedule=Schedule(steps=20)),
        ),
        cache=ArtefactCache(tmp_path),
    )

    (made,) = [each for each in report.candidates if each.name == "onnxruntime-int8-trained"]
    assert made.status == "measured", made.reason
    assert made.verdict is not None
    assert made.verdict.accuracy is not None
    assert made.verdict.accuracy.optimised.value > 0.95
    assert made.variant is not None
    item = digit_data().items[0]
    with opened(made.variant) as run:
        (found,) = run(item).values()
    assert found.shape == (1, 10)
    import onnx

    kinds = {node.op_type for node in onnx.load(made.variant.folder / "model.onnx").graph.node}
    assert "QuantizeLinear" in kinds
    assert np.isfinite(found).all()


def test_random_inputs_teach_nothing_and_the_recipe_says_so(tmp_path: Path) -> None:
    report = optimize(
        trained_net(),
        Wish(recipes=("onnxruntime-int8-trained",), num_rounds=2, measure_memory=False),
        cache=ArtefactCache(tmp_path),
    )

    assert "needs real data" in report.candidates[1].reason
