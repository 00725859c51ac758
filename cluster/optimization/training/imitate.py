"""A student trained to answer as its teacher does, with labels where they are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from cluster.errors import ConfigError
from cluster.optimization.export.module import named_outputs
from cluster.optimization.training.lessons import Item, Lessons, Schedule, batches

if TYPE_CHECKING:
    from torch import Tensor

MASK = "attention_mask"
NORM_LIMIT = 1.0
SHARE_OF_ENDS = 0.1
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLog:
    """`losses`: one a step, of the batch before the step was made."""

    losses: tuple[float, ...]

    @property
    def first(self) -> float:
        """Mean of the first tenth."""
        return _mean(self.losses[: self._ends])

    @property
    def last(self) -> float:
        """Mean of the last tenth."""
        return _mean(self.losses[-self._ends :])

    @property
    def _ends(self) -> int:
        return max(1, round(SHARE_OF_ENDS * len(self.losses)))

    def as_dict(self) -> dict[str, object]:
        return {"steps": len(self.losses), "first_loss": self.first, "last_loss": self.last}


Teacher = Callable[[Item], dict[str, "Tensor"]]
"""Rows in, outputs by name out."""


def taught_by(module: nn.Module) -> Teacher:
    """A torch module as a teacher, in evaluation mode."""
    module.eval()

    def answer(rows: Item) -> dict[str, Tensor]:
        with torch.no_grad():
            return named_outputs(module(*tensors(rows)))

    return answer


def imitate(
    student: nn.Module,
    teacher: Teacher,
    lessons: Lessons,
    schedule: Schedule,
    *,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> TrainingLog:
    """Trains `student` in place and leaves it in evaluation mode.

    Dropout is off and batch norms keep their statistics: few steps on few items would spoil them
    (`recalibrate` sets them beforehand where layers have changed). The same inputs give the same
    weights on one machine with one thread.

    Raises: ConfigError when the two answer in different shapes, or the loss is no number any more.
    """
    student.eval()
    weights = [each for each in student.parameters() if each.is_floating_point()]
    for each in weights:
        each.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, lr=schedule.learning_rate, weight_decay=0.01)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, schedule.steps))
    losses: list[float] = []
    given = batches(lessons, schedule.batch_size, schedule.seed)
    with torch.random.fork_rng(devices=[]), _threads(schedule.threads):
        torch.manual_seed(schedule.seed)
        for step in range(schedule.steps):
            rows, indices = next(given)
            loss = _loss(student, teacher, rows, indices, lessons, schedule)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise ConfigError(
                    f"the loss is {losses[-1]} after {step} steps; try a learning rate below "
                    f"{schedule.learning_rate:g}",
                    key="learning_rate",
                    value=schedule.learning_rate,
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(weights, NORM_LIMIT)
            optimizer.step()
            decay.step()
            on_step(step + 1, losses[-1])
    for each in weights:
        each.requires_grad_(False)
    return TrainingLog(losses=tuple(losses))


def recalibrate(module: nn.Module, lessons: Lessons, *, num_batches: int = 8) -> None:
    """Statistics of batch norms taken anew, as the mean over batches: what they saw has changed."""
    norms = [each for each in module.modules() if isinstance(each, _BATCH_NORMS)]
    if not norms:
        return
    momenta = [each.momentum for each in norms]
    for each in norms:
        each.reset_running_stats()
        each.momentum = None  # the plain mean over all batches
        each.train()
    given = batches(lessons, 16, 0)
    with torch.no_grad():
        for _ in range(num_batches):
            rows, _ = next(given)
            module(*tensors(rows))
    for each, momentum in zip(norms, momenta, strict=True):
        each.momentum = momentum
        each.eval()


def tensors(rows: Item) -> list[Tensor]:
    return [torch.from_numpy(array) for array in rows.values()]


def distance(
    found: dict[str, Tensor],
    wanted: dict[str, Tensor],
    *,
    ranks_classes: bool,
    temperature: float,
    mask: Tensor | None = None,
) -> Tensor:
    """How far the student's answers are from the teacher's.

    Of scores: the divergence of the softened probabilities, times the temperature squared. Of
    anything else: the mean square, in units of the teacher's own; positions that `mask` hides do
    not count.
    """
    total = torch.zeros(())
    for number, (name, target) in enumerate(wanted.items()):
        answer = found[name]
        if answer.shape != target.shape:
            raise ConfigError(
                f"output {name!r}: the student gives {list(answer.shape)}, the teacher "
                f"{list(target.shape)}",
                key="student",
            )
        if not target.is_floating_point():
            continue
        if number == 0 and ranks_classes:
            total = total + temperature**2 * functional.kl_div(
                functional.log_softmax(answer / temperature, -1).flatten(0, -2),
                functional.log_softmax(target / temperature, -1).flatten(0, -2),
                reduction="batchmean",
                log_target=True,
            )
            continue
        square = (answer - target).square()
        scale = target.square()
        if mask is not None and target.ndim == 3 and mask.shape == target.shape[:2]:
            seen = mask.to(target.dtype)[..., None]
            square, scale = square * seen, scale * seen
            total = total + _pooled_distance(answer, target, seen)
        total = total + square.sum() / scale.sum().clamp_min(1e-12)
    return total


def _pooled_distance(answer: Tensor, target: Tensor, seen: Tensor) -> Tensor:
    """1 - cosine of the means over a text's tokens: what embeddings are used as."""
    found, wanted = (answer * seen).sum(1), (target * seen).sum(1)
    return 1 - functional.cosine_similarity(found, wanted).mean()


def _loss(
    student: nn.Module,
    teacher: Teacher,
    rows: Item,
    indices: list[int],
    lessons: Lessons,
    schedule: Schedule,
) -> Tensor:
    wanted = teacher(rows)
    found = named_outputs(student(*tensors(rows)))
    mask = torch.from_numpy(rows[MASK]) if MASK in rows else None
    loss = distance(
        _like(found, wanted),
        wanted,
        ranks_classes=lessons.ranks_classes,
        temperature=schedule.temperature,
        mask=mask,
    )
    if lessons.labels is None or not lessons.ranks_classes:
        return loss
    labels = torch.tensor([lessons.labels[index] for index in indices])
    told = functional.cross_entropy(next(iter(found.values())), labels)
    return (1 - schedule.label_weight) * loss + schedule.label_weight * told


def _like(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """By the teacher's names; by position where the student has none of its own in common."""
    if set(wanted) <= set(found):
        return found
    if len(found) != len(wanted):
        raise ConfigError(
            f"the student gives {len(found)} outputs, the teacher {len(wanted)}", key="student"
        )
    return dict(zip(wanted, found.values(), strict=True))


@contextmanager
def _threads(num: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rate(step: int, steps: int) -> float:
    rising = max(1, steps // 10)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)
