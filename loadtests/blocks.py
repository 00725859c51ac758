"""Two things measured in turns, so that what the machine does meanwhile happens to both.

A unit is A B B A or B A A B, drawn afresh; each half of it is a pair. A canary (a fixed piece of
computing) runs before each block: a pair whose canaries stray from the run's median is dropped.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Generic, Literal, TypeVar

import numpy as np

from loadtests.intervals import Ratio, ratio_of

Label = Literal["A", "B"]
Result = TypeVar("Result")
MAX_CANARY_DEVIATION = 0.25
"""On a shared machine; 0.10 on one of its own (facts: "Procedure", point 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(Generic[Result]):
    """`canary_ms`: wall time of the same computing just before. `load_1m`: of the machine."""

    label: Label
    unit: int
    result: Result
    canary_ms: float
    load_1m: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Generic[Result]):
    blocks: tuple[Block[Result], ...]

    def pairs(self) -> list[tuple[Block[Result], Block[Result]]]:
        """(A, B) of each half unit in their order, without pairs that a canary spoils.

        When that would leave none, all: then the interval says how little is known.
        """
        halves = zip(self.blocks[::2], self.blocks[1::2], strict=True)
        pairs = [(x, y) if x.label == "A" else (y, x) for x, y in halves]
        usual_ms = statistics.median(block.canary_ms for block in self.blocks)
        steady = [pair for pair in pairs if all(_is_steady(block, usual_ms) for block in pair)]
        return steady or pairs

    def ratio(self, value: Callable[[Result], float], *, seed: int = 0) -> Ratio:
        """A / B of `value`."""
        pairs = self.pairs()
        new = [value(a.result) for a, _ in pairs]
        old = [value(b.result) for _, b in pairs]
        return ratio_of(new, old, seed=seed)

    def values(self, label: Label, value: Callable[[Result], float]) -> list[float]:
        place = 0 if label == "A" else 1
        return [value(pair[place].result) for pair in self.pairs()]

    def num_dropped(self) -> int:
        return len(self.blocks) // 2 - len(self.pairs())


def block_order(num_units: int, *, seed: int) -> list[Label]:
    """`num_units` times A B B A or B A A B."""
    draw = Random(seed)
    order: list[Label] = []
    for _ in range(num_units):
        first, second = draw.choice((("A", "B"), ("B", "A")))
        order += [first, second, second, first]
    return order


def compare(
    measure_a: Callable[[], Result],
    measure_b: Callable[[], Result],
    *,
    num_units: int,
    seed: int,
    canary: Callable[[], float] | None = None,
) -> Comparison[Result]:
    """Each call of a `measure` is one block. Give the same one twice for an A/A control."""
    run_canary = canary or canary_ms
    blocks: list[Block[Result]] = []
    for place, label in enumerate(block_order(num_units, seed=seed)):
        before_ms = run_canary()
        result = measure_a() if label == "A" else measure_b()
        blocks.append(
            Block(
                label=label,
                unit=place // 4,
                result=result,
                canary_ms=before_ms,
                load_1m=os.getloadavg()[0],
            )
        )
    return Comparison(blocks=tuple(blocks))


def canary_ms() -> float:
    """About 30 ms of multiply-adds and a 64 MB read. **Units:** milliseconds of wall time."""
    left = np.full((256, 256), 0.5, dtype=np.float32)
    memory = np.ones(16_000_000, dtype=np.float32)
    started_s = time.perf_counter()
    for _ in range(40):
        left @ left
    memory.sum()
    return (time.perf_counter() - started_s) * 1000


def _is_steady(block: Block[Result], usual_ms: float) -> bool:
    return abs(block.canary_ms / usual_ms - 1) <= MAX_CANARY_DEVIATION


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
