from __future__ import annotations

from random import Random

import pytest
from hdrh.histogram import HdrHistogram

from loadtests.latencies import encoded, new_histogram, quantiles, rank_interval


def test_too_few_samples_carry_no_tail_quantile() -> None:
    assert rank_interval(0, 0.5) is None
    assert rank_interval(100, 0.99) is None
    assert rank_interval(3000, 0.999) is None


def test_the_interval_of_a_median_of_a_hundred_are_the_40th_and_61st_sample() -> None:
    # Tabulated: P(40th < median < 61st) = 0.9540 (Conover, table A3).
    assert rank_interval(100, 0.5) == (40, 61)


def test_ten_thousand_samples_bound_the_99th_percentile_within_a_fifth_of_a_percent() -> None:
    low, high = rank_interval(10_000, 0.99) or (0, 0)

    assert 9880 <= low < 9900 < high <= 9921


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_the_interval_covers_the_true_quantile_about_95_times_in_a_hundred(q: float) -> None:
    draw = Random(3)
    num_trials, num_covered = 400, 0
    for _ in range(num_trials):
        samples = sorted(draw.random() for _ in range(2000))
        low, high = rank_interval(2000, q) or (0, 0)
        # Of uniform samples the q-quantile is q itself.
        num_covered += samples[low - 1] <= q <= samples[high - 1]

    assert num_covered / num_trials >= 0.92


def test_quantiles_are_milliseconds_of_recorded_microseconds_with_those_that_few_samples_lack() -> (
    None
):
    histogram = new_histogram()
    for value_us in range(1, 1001):
        histogram.record_value(value_us * 1000)

    found = {each.q: each for each in quantiles(histogram)}

    assert set(found) == {0.5, 0.9, 0.99}
    assert found[0.5].ms == pytest.approx(500, rel=0.002)
    assert found[0.99].ms == pytest.approx(990, rel=0.002)
    assert found[0.99].low_ms < found[0.99].ms < found[0.99].high_ms


def test_a_histogram_survives_being_written_into_json() -> None:
    histogram = new_histogram()
    histogram.record_value(1234, 5)

    again = HdrHistogram.decode(encoded(histogram))

    assert again.get_total_count() == 5
    assert again.get_value_at_percentile(50) == pytest.approx(1234, rel=0.001)
