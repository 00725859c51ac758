"""What a model costs at each batch size, as its callers meet it, and the size that pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cluster.client.backend import Backend
from cluster.client.measure.samples import sample_row
from cluster.client.values import BatchFigure
from cluster.errors import ConfigError
from cluster.optimization.measure.benchmark import batch_of
from cluster.optimization.measure.timing import interleave

if TYPE_CHECKING:
    from cluster.client.model import Model

GAIN = 1.05
"""A larger batch must give at least so much more throughput; an A/A pair differs by 3 %."""


def benchmark(
    model: Model, batch_sizes: Sequence[int] = (1,), *, data: Any = None, num_rounds: int = 10
) -> tuple[BatchFigure, ...]:
    """As `Model.benchmark`."""
    return model.benchmark(batch_sizes, data=data, num_rounds=num_rounds)


def run_benchmark(
    backend: Backend, batch_sizes: Sequence[int], *, data: Any = None, num_rounds: int = 10
) -> tuple[BatchFigure, ...]:
    """The sizes take turns in one run. `cpu_ms` is this process's: of a server's model it is what
    the client itself costs.

    Raises: ConfigError for a size below 1, or above 1 for a model without a batch dimension.
    """
    if not batch_sizes:
        raise ConfigError("batch_sizes is empty; give some, as in [1, 8, 32]", key="batch_sizes")
    for size in batch_sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ConfigError(
                f"batch size {size!r}: allowed: whole numbers from 1 on", key="batch_sizes"
            )
        if size > 1 and not backend.is_batched:
            raise ConfigError(
                f"batch size {size}: {backend.name} has no batch dimension", key="batch_sizes",
                value=size, allowed="1",
            )  # fmt: skip
    if isinstance(num_rounds, bool) or not isinstance(num_rounds, int) or num_rounds < 1:
        raise ConfigError(
            f"num_rounds is {num_rounds!r}; allowed: 1 and more", key="num_rounds",
            value=str(num_rounds),
        )  # fmt: skip
    row = sample_row(backend, data)
    calls: dict[str, Callable[[], object]] = {
        str(size): _call(backend, batch_of([row], size, batched=backend.is_batched))
        for size in dict.fromkeys(batch_sizes)
    }
    timings = interleave(calls, num_rounds=num_rounds)
    return tuple(
        BatchFigure(
            batch_size=int(size),
            latency_ms=timing.p50_ms,
            p99_ms=timing.p99_ms,
            cpu_ms=timing.cpu_p50_ms,
            items_per_s=1e3 * int(size) / timing.p50_ms,
            num_calls=len(timing.wall_ms),
        )
        for size, timing in timings.items()
    )


def best_size(figures: Sequence[BatchFigure], max_latency_ms: float | None = None) -> int:
    """The smallest size after which no larger one gives 5 % more items a second, of those whose
    p50 keeps `max_latency_ms`. Raises: ConfigError when none does."""
    kept = [f for f in figures if max_latency_ms is None or f.latency_ms <= max_latency_ms]
    if not kept:
        least = min(figure.latency_ms for figure in figures)
        raise ConfigError(
            f"no batch size keeps {max_latency_ms:g} ms; the least measured is {least:.2f} ms",
            key="max_latency_ms",
            value=max_latency_ms,
        )
    kept.sort(key=lambda figure: figure.batch_size)
    most = max(figure.items_per_s for figure in kept)
    return next(f.batch_size for f in kept if f.items_per_s * GAIN >= most)


def _call(backend: Backend, batch: Any) -> Callable[[], object]:
    return lambda: backend.infer(batch, ())
