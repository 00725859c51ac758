"""The node's metrics read as Triton's statistics: one source for both, true across processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.protocols.extensions.statistics import BatchTotal, ModelStatistics, Total

NS_PER_US = 1000
NS_PER_S = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One line of the metrics: a name, its labels, a value."""

    name: str
    labels: Mapping[str, str]
    value: float


class NodeSamples:
    """Samples of a whole node, ready to be asked by name and model."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by_name: dict[str, list[Sample]] = {}
        for sample in samples:
            self._by_name.setdefault(sample.name.removesuffix("_total"), []).append(sample)

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples of that name with these labels."""
        return sum(sample.value for sample in self._matching(name, labels))

    def largest(self, name: str, **labels: str) -> float:
        return max((sample.value for sample in self._matching(name, labels)), default=0.0)

    def by_label(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Value of `label` -> the sum of the samples that have it."""
        found: dict[str, float] = {}
        for sample in self._matching(name, labels):
            key = sample.labels[label]
            found[key] = found.get(key, 0.0) + sample.value
        return found

    def _matching(self, name: str, labels: Mapping[str, str]) -> list[Sample]:
        return [
            sample
            for sample in self._by_name.get(name, ())
            if all(sample.labels.get(key) == value for key, value in labels.items())
        ]


def model_statistics(node: NodeSamples, model: str, version: str) -> ModelStatistics:
    """What the doors answered for a model and what its replicas computed.

    A model without replicas of its own (an experiment, an ensemble) has no rows and no batches
    that could be told apart from its members': each of its answers that did not come from the cache
    counts as one of both.
    """
    key = {"model": model, "version": version}
    success = int(node.total("nv_inference_request_success", **key))
    fail = int(node.total("nv_inference_request_failure", **key))
    executed = int(node.total("squadron_executed_requests", **key))
    hits = int(node.total("nv_cache_num_hits_per_model", **key))
    misses = int(node.total("nv_cache_num_misses_per_model", **key))
    executions = int(node.total("nv_inference_exec_count", **key))
    rows = int(node.total("nv_inference_count", **key))
    failed_ns = round(node.total("squadron_request_failure_seconds", **key) * NS_PER_S)
    return ModelStatistics(
        name=model,
        version=version,
        last_inference_ms=int(node.largest("squadron_last_inference_seconds", **key) * 1000),
        inference_count=rows if executions else max(0, success - hits),
        execution_count=executions or max(0, success - hits),
        success=Total(count=success, ns=_ns(node, "nv_inference_request_duration_us", key)),
        fail=Total(count=fail, ns=failed_ns),
        queue=Total(count=executed, ns=_ns(node, "nv_inference_queue_duration_us", key)),
        compute_input=Total(
            count=executed, ns=_ns(node, "nv_inference_compute_input_duration_us", key)
        ),
        compute_infer=Total(
            count=executed, ns=_ns(node, "nv_inference_compute_infer_duration_us", key)
        ),
        compute_output=Total(
            count=executed, ns=_ns(node, "nv_inference_compute_output_duration_us", key)
        ),
        cache_hit=Total(count=hits, ns=_ns(node, "nv_cache_hit_duration_per_model", key)),
        cache_miss=Total(count=misses, ns=_ns(node, "nv_cache_miss_duration_per_model", key)),
        batches=_batches(node, key),
    )


def _batches(node: NodeSamples, key: Mapping[str, str]) -> tuple[BatchTotal, ...]:
    counts = node.by_label("squadron_batch_size_executions", "batch_size", **key)
    times_s = node.by_label("squadron_batch_size_compute_seconds", "batch_size", **key)
    return tuple(
        BatchTotal(
            batch_size=int(size),
            compute_infer=Total(
                count=int(counts[size]), ns=round(times_s.get(size, 0.0) * NS_PER_S)
            ),
        )
        for size in sorted(counts, key=int)
    )


def _ns(node: NodeSamples, name: str, key: Mapping[str, str]) -> int:
    return round(node.total(name, **key) * NS_PER_US)
