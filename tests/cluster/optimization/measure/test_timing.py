"""Interleaved timing: who is called, how ratios are made."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import ConfigError
from cluster.optimization.measure.benchmark import batch_of, benchmark
from cluster.optimization.measure.timing import Timing, interleave, speedup
from cluster.optimization.measure.variant import Variant
from tests.cluster.optimization.tiny_nets import TinyMlp, exported


def test_every_round_calls_each_thing_in_changing_order() -> None:
    called: list[str] = []
    names = ("a", "b", "c")

    found = interleave(
        {name: lambda name=name: called.append(name) for name in names},  # type: ignore[misc]
        num_rounds=6,
        round_s=0,
        warm_up=0,
    )

    rounds = [called[start : start + 6] for start in range(0, len(called), 6)]
    assert all(sorted(each) == sorted([*names, *names]) for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    assert all(len(found[name].round_wall_ms) == 6 for name in names)


def test_a_speedup_is_the_median_of_the_rounds_ratios() -> None:
    old = Timing(round_cpu_ms=[10, 20, 40], round_wall_ms=[100, 100, 100])
    new = Timing(round_cpu_ms=[5, 10, 10], round_wall_ms=[100, 50, 25])

    by_cpu = speedup(new, old, by_cpu=True)
    by_wall = speedup(new, old, by_cpu=False)

    assert (by_cpu.value, by_cpu.low, by_cpu.high) == pytest.approx((2, 2, 4))
    assert (by_wall.value, by_wall.low, by_wall.high) == pytest.approx((2, 1, 4))


def test_a_p99_needs_a_hundred_calls() -> None:
    assert Timing(wall_ms=[1.0] * 99).p99_ms is None
    assert Timing(wall_ms=[float(each) for each in range(1, 201)]).p99_ms == 198


def test_each_batch_size_is_measured_on_the_serving_engine(tmp_path: Path) -> None:
    module = TinyMlp()
    card = exported(module, tmp_path)

    found = benchmark(
        Variant(card=card, folder=tmp_path), [module.example_inputs()], (1, 4), num_rounds=2
    )

    assert [each.batch_size for each in found] == [1, 4]
    assert all(each.items_per_s > 0 and each.timing.cpu_p50_ms >= 0 for each in found)


def test_a_batch_holds_as_many_rows_as_asked_for() -> None:
    rows = [TinyMlp().example_inputs()]

    assert batch_of(rows, 5, batched=True)["x"].shape == (5, 64)


def test_a_batch_size_that_the_model_cannot_take_is_refused(tmp_path: Path) -> None:
    card = exported(TinyMlp(), tmp_path)
    alone = Variant(card=card.model_copy(update={"batched": False}), folder=tmp_path)
    for variant, size in ((alone, 2), (Variant(card=card, folder=tmp_path), 0)):
        with pytest.raises(ConfigError, match=f"batch size {size}"):
            benchmark(variant, [TinyMlp().example_inputs()], (size,))
