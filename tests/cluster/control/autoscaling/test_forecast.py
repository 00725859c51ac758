from __future__ import annotations

import math
import random

from cluster.control.autoscaling.forecast import RateForecast


def forecast(season_s: float = 0.0, phase_s: float = 0.0) -> RateForecast:
    return RateForecast(look_back_s=10, season_s=season_s, quantile=0.95, phase_s=phase_s)


def feed(made: RateForecast, counts: list[int], start_s: int = 0) -> None:
    for second, count in enumerate(counts, start=start_s + 1):
        made.observe(float(second), 1.0, count)


def test_a_steady_rate_is_expected_to_stay() -> None:
    made = forecast()
    feed(made, [10] * 60)

    found = made.ahead(60, 30)

    assert (found.rate, found.now, found.source) == (10.0, 10.0, "the present rate")


def test_a_rise_is_drawn_on_and_a_fall_is_not() -> None:
    rising, falling = forecast(), forecast()
    feed(rising, [2 * second for second in range(40)])
    feed(falling, [2 * second for second in reversed(range(40))])

    assert rising.ahead(40, 10).rate == rising.ahead(40, 0).rate + 2 * 10
    assert rising.ahead(40, 10).source == "its rise drawn on"
    assert falling.ahead(40, 10).rate == falling.ahead(40, 10).now


def test_chance_is_no_rise() -> None:
    draw = random.Random(5)
    num_rises = 0
    made = forecast()
    for second in range(2000):
        made.observe(float(second + 1), 1.0, sum(draw.random() < 0.1 for _ in range(100)))
        num_rises += made.ahead(second + 1.0, 10).source == "its rise drawn on"

    assert num_rises < 60


def test_after_one_season_the_next_peak_is_seen_before_it_comes() -> None:
    season_s = 960
    made = forecast(season_s)

    def rate(second: int) -> int:
        return 50 if second % season_s >= 480 else 5

    feed(made, [rate(second) for second in range(season_s + 460)])

    soon, later = made.ahead(1420, 5), made.ahead(1420, 30)
    assert soon.rate < 10
    assert later.source == "the season"
    assert 49 <= later.rate < 60


def test_a_season_that_was_missed_is_provided_for_by_its_quantile() -> None:
    season_s, draw = 960, random.Random(9)
    made = forecast(season_s)
    highs = [draw.choice((20, 40)) for _ in range(200)]

    def rate(second: int) -> int:
        return highs[second // season_s]

    feed(made, [rate(second) for second in range(20 * season_s)])

    assert made.ahead(20 * season_s, 20).rate > 35


def test_a_season_is_found_again_by_another_process_whose_clock_began_elsewhere() -> None:
    season_s = 960

    def rate(second: int) -> int:
        return 50 if second % season_s >= 480 else 5

    before, after = forecast(season_s), forecast(season_s, phase_s=season_s + 400.0)
    feed(before, [rate(second) for second in range(season_s + 400)])
    season = before.season()
    assert season is not None
    after.remember(season)
    after.remember(season)
    feed(after, [rate(season_s + 400 + second) for second in range(60)])

    soon, later = after.ahead(60, 5), after.ahead(60, 30)

    assert soon.rate < 10
    assert later.source == "the season"
    assert 49 <= later.rate < 60


def test_what_was_seen_here_counts_more_than_what_is_remembered_and_other_seasons_nothing() -> None:
    one, other = forecast(960), forecast(480)
    feed(one, [20] * 100)
    feed(other, [90] * 480)
    season = other.season()
    assert season is not None
    own = one.season()

    one.remember(season)
    assert one.season() == own
    feed(other := forecast(960), [90] * 960)
    season = other.season()
    assert season is not None
    one.remember(season)

    merged = one.season()
    assert merged is not None
    assert merged.profile[:9] == (20.0,) * 9
    assert set(merged.profile[10:]) == {90.0}


def test_dispersion_tells_bursts_from_poisson() -> None:
    draw = random.Random(1)
    poisson, bursts = forecast(), forecast()
    for second in range(1, 121):
        count = sum(draw.random() < 0.05 for _ in range(200))
        poisson.observe(float(second), 1.0, count)
        bursts.observe(float(second), 1.0, 100 if second % 10 == 0 else 0)

    assert 0.6 < poisson.dispersion() < 1.6
    assert bursts.dispersion() > 20
    assert math.isclose(forecast().dispersion(), 1.0)
