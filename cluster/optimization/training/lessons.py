"""What a student learns from: items of one row each, in batches of one shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np

from cluster.errors import ConfigError
from cluster.tensors import Array

Item = dict[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lessons:
    """Items that nobody is judged on; `labels` beside them when all are known.

    `ranks_classes`: the last axis of the first output holds scores, so that the teacher's
    probabilities are what is learnt. Otherwise the outputs themselves are.
    """

    items: tuple[Item, ...]
    labels: tuple[int, ...] | None = None
    ranks_classes: bool = False

    def __post_init__(self) -> None:
        if not self.items:
            raise ConfigError("there are no items to learn from", key="data")
        if self.labels is not None and len(self.labels) != len(self.items):
            raise ConfigError(
                f"{len(self.items)} items and {len(self.labels)} labels: there must be as many",
                key="labels",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """`learning_rate` is reached after a tenth of the steps and falls to zero by a cosine.

    `temperature` softens the teacher's probabilities; `label_weight` is the share of the loss that
    true labels have, where they are known. `threads`: torch's; more than one collapse where another
    process wants the cores too. **Source:** Hinton et al. 2015.
    """

    steps: int = 200
    batch_size: int = 16
    learning_rate: float = 5e-4
    temperature: float = 2.0
    label_weight: float = 0.5
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "temperature", "threads"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"{name} is {value}; allowed: above 0", key=name, value=value)
        if not 0 <= self.label_weight <= 1:
            raise ConfigError(
                f"label_weight is {self.label_weight}; allowed: 0 to 1",
                key="label_weight",
                value=self.label_weight,
            )


def batches(lessons: Lessons, size: int, seed: int) -> Iterator[tuple[Item, list[int]]]:
    """Batches without end, every item once in each pass, in an order drawn anew for each.

    Gives the rows, joined, and which items they are. Items of different shapes (texts of other
    lengths) never meet in a batch.
    """
    alike: dict[tuple[object, ...], list[int]] = {}
    for index, item in enumerate(lessons.items):
        shape = tuple((name, array.shape, str(array.dtype)) for name, array in item.items())
        alike.setdefault(shape, []).append(index)
    draw = Random(seed)
    while True:
        chunks: list[list[int]] = []
        for indices in alike.values():
            order = draw.sample(indices, len(indices))
            chunks += [order[start : start + size] for start in range(0, len(order), size)]
        draw.shuffle(chunks)
        for chunk in chunks:
            yield joined(lessons.items, chunk), chunk


def joined(items: tuple[Item, ...], indices: list[int]) -> Item:
    """Shapes: `[rows, …]` each."""
    return {name: np.concatenate([items[i][name] for i in indices]) for name in items[0]}
