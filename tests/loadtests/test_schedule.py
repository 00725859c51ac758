from __future__ import annotations

import itertools
import statistics

import pytest

from loadtests.schedule import arrival_times


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert arrival_times("constant", rate_per_s=4, seconds=1, seed=0) == [0.0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_are_the_same_for_the_same_seed_only() -> None:
    times = arrival_times("poisson", rate_per_s=100, seconds=1, seed=7)

    assert times == arrival_times("poisson", rate_per_s=100, seconds=1, seed=7)
    assert times != arrival_times("poisson", rate_per_s=100, seconds=1, seed=8)


def test_poisson_arrivals_ascend_within_the_length_at_the_rate_asked_for() -> None:
    times = arrival_times("poisson", rate_per_s=1000, seconds=20, seed=1)

    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 20
    # A Poisson count of mean 20,000 has a standard deviation of 141.
    assert abs(len(times) - 20_000) < 4 * 141


def test_poisson_gaps_vary_as_much_as_they_are_long() -> None:
    times = arrival_times("poisson", rate_per_s=1000, seconds=20, seed=1)
    gaps = [after - before for before, after in itertools.pairwise(times)]

    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (-1, 1), (1, 0)])
def test_a_rate_or_length_of_nothing_is_refused(rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="must both be above 0"):
        arrival_times("poisson", rate_per_s=rate, seconds=seconds, seed=0)
