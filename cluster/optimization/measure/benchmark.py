"""What a model costs at each batch size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.errors import ConfigError, SquadronError
from cluster.optimization.measure.timing import Timing, interleave
from cluster.optimization.measure.variant import Run, Variant, opened
from cluster.tensors import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCost:
    """`items_per_s` is from the wall time, `cpu_ms_per_item` from the CPU time of all threads."""

    batch_size: int
    timing: Timing

    @property
    def items_per_s(self) -> float:
        return 1e3 * self.batch_size / self.timing.p50_ms

    def as_dict(self) -> dict[str, float | int | None]:
        return {
            "batch_size": self.batch_size,
            **self.timing.as_dict(),
            "items_per_s": self.items_per_s,
            "cpu_ms_per_item": self.timing.cpu_p50_ms / self.batch_size,
        }


def benchmark(
    variant: Variant,
    items: Sequence[Mapping[str, Array]],
    batch_sizes: Sequence[int] = (1,),
    *,
    threads: int = 1,
    device: str = "cpu",
    num_rounds: int = 10,
    done: Callable[[], None] = lambda: None,
) -> tuple[BatchCost, ...]:
    """The batch sizes take turns in one run. Rows of a batch are `items` over and over.

    Raises: ConfigError for a batch size below 1, or above 1 for a model without a batch dimension.
    """
    for size in batch_sizes:
        if size < 1 or (size > 1 and not variant.card.batched):
            reason = "allowed: 1 and more" if size < 1 else "the model has no batch dimension"
            raise ConfigError(f"batch size {size}: {reason}", key="batch_sizes", value=size)
    with opened(variant, threads=threads, device=device) as run:
        calls = {
            str(size): _call(run, batch_of(items, size, batched=variant.card.batched))
            for size in dict.fromkeys(batch_sizes)
        }
        try:
            timings = interleave(calls, num_rounds=num_rounds, done=done)
        except SquadronError as error:
            raise ConfigError(f"{variant.card.name}: {error.message}", key="batch_sizes") from None
    return tuple(BatchCost(batch_size=int(size), timing=timing) for size, timing in timings.items())


def batch_of(items: Sequence[Mapping[str, Array]], size: int, *, batched: bool) -> dict[str, Array]:
    """`size` rows under each other; those of other shapes than the first item's are passed over."""
    first = items[0]
    if not batched:
        return dict(first)
    shapes = {name: array.shape[1:] for name, array in first.items()}
    alike = [
        item for item in items if {name: array.shape[1:] for name, array in item.items()} == shapes
    ]
    chosen = [alike[index % len(alike)] for index in range(size)]
    return {name: np.concatenate([item[name] for item in chosen])[:size] for name in first}


def _call(run: Run, batch: dict[str, Array]) -> Callable[[], object]:
    return lambda: run(batch)
