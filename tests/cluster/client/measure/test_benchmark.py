"""Which batch size pays, from figures; and that figures are of the model that was asked."""

from __future__ import annotations

import pytest

from cluster.client import BatchFigure, benchmark
from cluster.client.measure.benchmark import best_size
from cluster.errors import ConfigError
from tests.cluster.client.places import Place


def figure(batch_size: int, latency_ms: float) -> BatchFigure:
    return BatchFigure(
        batch_size=batch_size,
        latency_ms=latency_ms,
        p99_ms=None,
        cpu_ms=latency_ms,
        items_per_s=1e3 * batch_size / latency_ms,
        num_calls=10,
    )


def test_a_model_that_gains_nothing_by_batches_is_best_alone() -> None:
    assert best_size([figure(1, 1.0), figure(2, 1.98), figure(4, 3.96), figure(8, 8.1)]) == 1


def test_the_smallest_of_those_that_give_as_much_is_taken() -> None:
    assert best_size([figure(1, 1.0), figure(4, 1.5), figure(8, 3.0), figure(16, 5.8)]) == 4


def test_a_bound_on_latency_leaves_out_what_breaks_it() -> None:
    figures = [figure(1, 1.0), figure(4, 2.0), figure(16, 4.0)]

    assert best_size(figures) == 16
    assert best_size(figures, max_latency_ms=3.0) == 4
    with pytest.raises(ConfigError, match=r"the least measured is 1\.00 ms"):
        best_size(figures, max_latency_ms=0.5)


def test_each_size_is_measured_once_whatever_is_asked_twice(place: Place) -> None:
    with place.client() as client:
        model = client.load_model("mlp")

        found = benchmark(model, [4, 1, 4], num_rounds=2)

        assert sorted(each.batch_size for each in found) == [1, 4]
        assert all(each.latency_ms > 0 for each in found)
        assert model.get_optimal_batch_size([1, 2], num_rounds=2) in (1, 2)
