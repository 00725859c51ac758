"""A model's statistics as Triton's clients and perf_analyzer read them, over HTTP and gRPC.

Cumulative since the node started; durations are nanoseconds summed over requests.
Source: protocol sections 4.6 and 5.9.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """`count` requests (or batches) that together took `ns` nanoseconds."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTotal:
    """The batches of one size, in rows."""

    batch_size: int
    compute_infer: Total


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatistics:
    """`inference_count` counts rows, `execution_count` batches; `last_inference_ms` since 1970.

    `cache_hit` and `cache_miss` are requests of a model that has a response cache. Putting
    a batch together and making its answers are timed in replicas; a door that holds the model
    itself, and the batches of each size, have all of it in `compute_infer`.
    """

    name: str
    version: str
    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Total = Total()
    fail: Total = Total()
    queue: Total = Total()
    compute_input: Total = Total()
    compute_infer: Total = Total()
    compute_output: Total = Total()
    cache_hit: Total = Total()
    cache_miss: Total = Total()
    batches: tuple[BatchTotal, ...] = ()


def statistics_json(models: Iterable[ModelStatistics]) -> dict[str, object]:
    """`{"model_stats": [...]}`; also the JSON form of the message ModelStatisticsResponse."""
    return {"model_stats": [_model(model) for model in models]}


def _model(model: ModelStatistics) -> dict[str, object]:
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": model.last_inference_ms,
        "inference_count": model.inference_count,
        "execution_count": model.execution_count,
        "inference_stats": {
            "success": _total(model.success),
            "fail": _total(model.fail),
            "queue": _total(model.queue),
            "compute_input": _total(model.compute_input),
            "compute_infer": _total(model.compute_infer),
            "compute_output": _total(model.compute_output),
            "cache_hit": _total(model.cache_hit),
            "cache_miss": _total(model.cache_miss),
        },
        "batch_stats": [
            {
                "batch_size": batch.batch_size,
                "compute_input": _total(Total(count=batch.compute_infer.count)),
                "compute_infer": _total(batch.compute_infer),
                "compute_output": _total(Total(count=batch.compute_infer.count)),
            }
            for batch in model.batches
        ],
        "memory_usage": [],
        "response_stats": {},
    }


def _total(total: Total) -> dict[str, int]:
    return {"count": total.count, "ns": total.ns}
