"""What rate of requests is to be expected when a replica that is started now will answer."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

NUM_BINS_A_SEASON = 96
NUM_SHORT_BINS = 12
LEVEL_SHARE = 0.3
"""How much of a season's error the level and the seasonal profile take over (Holt-Winters' alpha,
and gamma): small enough that one odd day does not become the rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Requests a second. `rate` is what is provided for, `now` the present mean; `source` says what
    made the difference."""

    rate: float
    now: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonSeen:
    """A season's mean rates, by the time of Unix time that it is in the season; None: not seen
    yet. `error2`: the sum of `num_errors` squared errors of that profile."""

    season_s: float
    profile: tuple[float | None, ...]
    error2: float
    num_errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonState:
    """Where a forecast is in its season; `seconds` and `count`: of the bin that is open."""

    seen: SeasonSeen
    bin: int
    count: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastState:
    """All that a forecast has learned. `bins`: end, length (s) and arrivals of each look."""

    bins: tuple[tuple[float, float, int], ...] = ()
    season: SeasonState | None = None


class RateForecast:
    """Learns from `observe`d arrivals and tells the rate `ahead_s` from now.

    The larger of two forecasts. Short: the mean of the last `look_back_s` and its trend, drawn on.
    Seasonal: additive Holt-Winters without a trend of its own (the level follows the present, the
    profile is the mean of past seasons), its largest value until then, plus what such a forecast
    missed by `quantile` of the time.

    Source: Hyndman and Athanasopoulos, Forecasting: Principles and Practice, sections 5.2 (seasonal
    naive) and 8.3 (Holt-Winters' additive method).
    """

    def __init__(
        self, *, look_back_s: float, season_s: float, quantile: float, phase_s: float = 0.0
    ) -> None:
        """`phase_s`: from the times it is told to Unix time; only seasons are found by that."""
        self._short = _ShortTerm(look_back_s)
        self._season = _Season(season_s, quantile, phase_s) if season_s else None

    def state(self) -> ForecastState:
        """For `restore` of a forecast with the same settings."""
        season = None if self._season is None else self._season.state()
        return ForecastState(bins=self._short.bins(), season=season)

    def restore(self, state: ForecastState) -> None:
        """It goes on as the one that had this `state`."""
        self._short = _ShortTerm(self._short.look_back_s, state.bins)
        if self._season is not None and state.season is not None:
            self._season.restore(state.season)

    def season(self) -> SeasonSeen | None:
        """None before there is anything to know of it."""
        return None if self._season is None else self._season.seen()

    def remember(self, season: SeasonSeen) -> None:
        """What another process saw; nothing where the season is another, or was seen here too."""
        if self._season is not None:
            self._season.remember(season)

    def observe(self, at_s: float, window_s: float, num_arrived: int) -> None:
        self._short.observe(at_s, window_s, num_arrived)
        if self._season is not None:
            self._season.observe(at_s, window_s, num_arrived)

    def ahead(self, at_s: float, ahead_s: float) -> Forecast:
        now = self._short.rate()
        rate, source = now, "the present rate"
        drawn_on = now + max(0.0, self._short.trend()) * ahead_s
        if drawn_on > rate * 1.05:
            rate, source = drawn_on, "its rise drawn on"
        if self._season is not None:
            seasonal = self._season.ahead(at_s, ahead_s, now)
            if seasonal > rate:
                rate, source = seasonal, "the season"
        return Forecast(rate=rate, now=now, source=source)

    def dispersion(self) -> float:
        """Variance over mean of the arrivals in a second: 1 for Poisson, more for bursts."""
        return self._short.dispersion()


class _ShortTerm:
    """Counts a second of the last while."""

    def __init__(self, look_back_s: float, bins: Iterable[tuple[float, float, int]] = ()) -> None:
        self.look_back_s = look_back_s
        self._bins = deque(bins)

    def bins(self) -> tuple[tuple[float, float, int], ...]:
        return tuple(self._bins)

    def observe(self, at_s: float, window_s: float, num_arrived: int) -> None:
        self._bins.append((at_s, window_s, num_arrived))
        # Bursts show themselves over a longer time than the rate is averaged over.
        while self._bins and self._bins[0][0] < at_s - NUM_SHORT_BINS * self.look_back_s:
            self._bins.popleft()

    def rate(self) -> float:
        return self._mean(0, self.look_back_s)

    def trend(self) -> float:
        """The rise of the rate a second, between the last two times of `look_back_s`; 0 where it is
        no more than chance (two standard errors of Poisson counts)."""
        recent, before = self._mean(0, self.look_back_s), self._mean(1, self.look_back_s)
        error = math.sqrt((recent + before) * max(1.0, self.dispersion()) / self.look_back_s)
        if abs(recent - before) <= 2 * error or not self._reaches(2):
            return 0.0
        return (recent - before) / self.look_back_s

    def dispersion(self) -> float:
        """Against the rate's own slow changes: of differences between neighbouring windows."""
        counts = [count for _, _, count in self._bins]
        total = sum(counts)
        if len(counts) < 10 or total < 20:
            return 1.0
        pairs = zip(counts[1:], counts, strict=False)
        variance = sum((a - b) ** 2 for a, b in pairs) / (2 * (len(counts) - 1))
        return max(0.1, variance / (total / len(counts)))

    def _mean(self, index: int, period_s: float) -> float:
        if not self._bins:
            return 0.0
        end_s = self._bins[-1][0] - index * period_s
        found = [(w, n) for at_s, w, n in self._bins if end_s - period_s < at_s <= end_s]
        seconds = sum(window_s for window_s, _ in found)
        return sum(count for _, count in found) / seconds if seconds > 0 else 0.0

    def _reaches(self, num_periods: int) -> bool:
        oldest_s = self._bins[0][0] - self._bins[0][1]
        return self._bins[-1][0] - oldest_s >= num_periods * self.look_back_s * 0.999


class _Season:
    def __init__(self, season_s: float, quantile: float, phase_s: float) -> None:
        self._season_s = season_s
        self._phase_s = phase_s
        self._bin_s = season_s / NUM_BINS_A_SEASON
        self._profile: list[float | None] = [None] * NUM_BINS_A_SEASON
        self._z = NormalDist().inv_cdf(quantile)
        self._error2 = 0.0
        self._num_errors = 0
        self._bin = -1
        self._count = 0
        self._seconds = 0.0

    def observe(self, at_s: float, window_s: float, num_arrived: int) -> None:
        number = self._number(at_s)
        if number != self._bin:
            self._close()
            self._bin, self._count, self._seconds = number, 0, 0.0
        self._count += num_arrived
        self._seconds += window_s

    def ahead(self, at_s: float, ahead_s: float, now: float) -> float:
        """The largest expected rate until `ahead_s` from now; 0 before one season has passed."""
        here = self._profile[self._number(at_s) % NUM_BINS_A_SEASON]
        if here is None:
            return 0.0
        places = range(self._number(at_s) + 1, self._number(at_s + ahead_s) + 1)
        known = [self._profile[place % NUM_BINS_A_SEASON] for place in places]
        values = [value for value in known if value is not None]
        if not values:
            return 0.0
        spread = math.sqrt(self._error2 / self._num_errors) if self._num_errors else 0.0
        # What today is above (or below) its past is expected to stay so for this short while.
        return max(values) + LEVEL_SHARE * (now - here) + self._z * spread

    def seen(self) -> SeasonSeen | None:
        return self._seen() if any(each is not None for each in self._profile) else None

    def state(self) -> SeasonState:
        return SeasonState(
            seen=self._seen(), bin=self._bin, count=self._count, seconds=self._seconds
        )

    def restore(self, state: SeasonState) -> None:
        self._profile = list(state.seen.profile)
        self._error2, self._num_errors = state.seen.error2, state.seen.num_errors
        self._bin, self._count, self._seconds = state.bin, state.count, state.seconds

    def _seen(self) -> SeasonSeen:
        return SeasonSeen(
            season_s=self._season_s,
            profile=tuple(self._profile),
            error2=self._error2,
            num_errors=self._num_errors,
        )

    def remember(self, season: SeasonSeen) -> None:
        is_same = season.season_s == self._season_s and len(season.profile) == len(self._profile)
        if not is_same:
            return
        pairs = zip(self._profile, season.profile, strict=True)
        self._profile = [theirs if own is None else own for own, theirs in pairs]
        if not self._num_errors:
            self._error2, self._num_errors = season.error2, season.num_errors

    def _number(self, at_s: float) -> int:
        return math.floor((at_s + self._phase_s) / self._bin_s)

    def _close(self) -> None:
        if self._seconds <= 0:
            return
        rate = self._count / self._seconds
        place = self._bin % NUM_BINS_A_SEASON
        known = self._profile[place]
        if known is None:
            self._profile[place] = rate
            return
        self._error2 += (rate - known) ** 2
        self._num_errors += 1
        self._profile[place] = known + LEVEL_SHARE * (rate - known)
