"""A student comes to answer as its teacher does."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from cluster.errors import ConfigError
from cluster.optimization.training.imitate import distance, imitate, recalibrate, taught_by
from cluster.optimization.training.lessons import Lessons, Schedule, batches
from tests.cluster.optimization.tiny_nets import TinyMlp
from tests.cluster.optimization.training.nets import DigitNet, accuracy, digit_data, trained_net


def lessons(num: int = 600) -> Lessons:
    taught = digit_data(num).taught()
    return Lessons(items=taught.items, labels=taught.labels, ranks_classes=True)


def test_a_small_student_learns_the_teachers_task_and_the_loss_falls() -> None:
    teacher, student = trained_net(), DigitNet(width=8)
    before = accuracy(student, digit_data())
    seen: list[int] = []

    log = imitate(
        student, taught_by(teacher), lessons(), Schedule(steps=120, learning_rate=5e-3),
        on_step=lambda step, loss: seen.append(step),
    )  # fmt: skip

    assert seen == list(range(1, 121))
    assert log.last < 0.3 * log.first
    assert before < 0.3
    assert accuracy(student, digit_data()) > 0.85


def test_without_labels_or_classes_the_outputs_themselves_are_learnt() -> None:
    teacher, student = TinyMlp(), copy.deepcopy(TinyMlp())
    with torch.no_grad():
        for each in student.parameters():
            each.add_(0.05 * torch.randn_like(each))
    draw = np.random.default_rng(0)
    rows = tuple({"x": draw.normal(size=(1, 64)).astype(np.float32)} for _ in range(40))

    log = imitate(student, taught_by(teacher), Lessons(items=rows), Schedule(steps=40))

    assert log.last < 0.5 * log.first


def test_the_same_lessons_give_the_same_weights() -> None:
    made = []
    for _ in range(2):
        student = DigitNet(width=8)
        imitate(student, taught_by(trained_net()), lessons(), Schedule(steps=5))
        made.append(student.head.weight.clone())

    assert torch.equal(*made)


def test_positions_behind_the_mask_do_not_count() -> None:
    mask = torch.tensor([[1, 0]])
    wanted = torch.ones(1, 2, 3)
    found = wanted.clone()
    found[0, 1] = 100

    with_mask = distance({"y": found}, {"y": wanted}, ranks_classes=False, temperature=1, mask=mask)

    assert float(with_mask) == pytest.approx(0, abs=1e-6)
    assert float(distance({"y": found}, {"y": wanted}, ranks_classes=False, temperature=1)) > 0


def test_a_student_of_another_shape_is_refused() -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 9)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.head(image.flatten(1))
            return scores

    with pytest.raises(ConfigError, match=r"student gives \[16, 9\], the teacher \[16, 10\]"):
        imitate(Narrow(), taught_by(trained_net()), lessons(), Schedule(steps=1))


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    broken = copy.deepcopy(trained_net())
    broken.head.bias.data[0] = float("nan")

    with pytest.raises(ConfigError, match="the loss is nan after 0 steps"):
        imitate(broken, taught_by(trained_net()), lessons(), Schedule(steps=3))


@pytest.mark.parametrize("name", ["steps", "batch_size", "learning_rate", "temperature"])
def test_a_schedule_is_above_zero(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        Schedule(**{name: 0})


def test_every_item_comes_once_a_pass_and_shapes_never_mix() -> None:
    items = tuple({"x": np.full((1, 2 + i % 2), i, np.float32)} for i in range(7))

    given = batches(Lessons(items=items), 3, 0)
    seen: list[int] = []
    while len(seen) < 7:
        rows, indices = next(given)
        assert rows["x"][:, 0].tolist() == indices
        seen += indices

    assert sorted(seen) == list(range(7))


def test_batch_norms_forget_what_they_saw_before() -> None:
    net = copy.deepcopy(trained_net())
    norm = net.body[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    before = norm.running_mean.clone()
    norm.running_mean.fill_(7)

    recalibrate(net, lessons())

    torch.testing.assert_close(norm.running_mean, before, atol=0.1, rtol=0.2)
    assert not net.training
    assert norm.momentum == 0.1
