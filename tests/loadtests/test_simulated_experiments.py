"""A slice of `loadtests.simulated_experiments`; the whole of it is run by hand."""

from __future__ import annotations

import math

from loadtests.simulated_experiments import World, judged, peek, sample_ratio_alarms


def test_looking_after_every_request_is_wrong_less_often_than_alpha_and_a_t_test_far_more() -> None:
    found = peek(0.0, num_experiments=500, num_requests=2000, alpha=0.05, tau=0.0953, seed=1)

    assert found.always_valid <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 500)
    assert found.naive > 0.25


def test_an_effect_of_the_expected_size_is_always_found() -> None:
    found = peek(0.1, num_experiments=100, num_requests=5000, alpha=0.05, tau=0.0953, seed=1)

    assert found.always_valid > 0.98


def test_the_sample_ratio_alarm_keeps_its_rate_and_finds_a_shift_of_two_points() -> None:
    equal, chi_square = sample_ratio_alarms(
        0.9, expected=0.9, num_experiments=200, num_units=10_000, alpha=0.05, seed=2
    )
    shifted, _ = sample_ratio_alarms(
        0.52, expected=0.5, num_experiments=50, num_units=20_000, alpha=0.05, seed=2
    )

    assert equal <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    assert chi_square > 0.2
    assert shifted > 0.9


def test_equal_arms_whose_requests_hang_together_are_not_rolled_back() -> None:
    world = World(moment_sigma=0.3, batch_sigma=0.1)

    found = judged(world, num_experiments=30, seconds=60, per_s=200, seed=3)

    assert found.roll_back == 0
    assert found.naive > 0.5


def test_an_arm_twenty_per_cent_slower_is_rolled_back_in_the_same_traffic() -> None:
    world = World(slower=0.2, moment_sigma=0.3, batch_sigma=0.1)

    found = judged(world, num_experiments=10, seconds=60, per_s=200, seed=3)

    assert found.roll_back == 1.0
