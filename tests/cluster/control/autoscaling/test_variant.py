from __future__ import annotations

from typing import Any

import pytest

from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.control.autoscaling.load import Scaling, VariantLoad
from cluster.control.autoscaling.variant import VariantScaler


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"min_replicas": 3}, "max_replicas is 1, below min_replicas"),
        ({"initial_replicas": 9}, "initial_replicas is 9, not between min_replicas"),
        ({"season_s": 5}, "a season has 60 s or more"),
        ({"max_replicsa": 5}, "Extra inputs"),
    ],
)
def test_settings_that_do_not_fit_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoscalingConfig.model_validate(keys)


class Run:
    """A variant that serves one request in 0.1 s; every look is a second later."""

    def __init__(self, num: int = 1, **config: Any) -> None:
        defaults = {"max_replicas": 20, "slo_ms": 500, "downscale_delay_s": 20}
        made = AutoscalingConfig.model_validate(defaults | config)
        self.scaler = VariantScaler("m", made)
        self.at_s = 0.0
        self.num = num

    def look(self, rate: int, **load: Any) -> Scaling:
        self.at_s += 1
        told: dict[str, Any] = {
            "at_s": self.at_s,
            "window_s": 1.0,
            "num_arrived": rate,
            "num_waiting": 0,
            "num_running": self.num,
            "num_target": self.num,
            "num_answered": rate,
            "num_in_time": rate,
            "busy_s": 0.1 * rate,
            "num_served": rate,
        }
        seen = VariantLoad(**(told | load))
        found = self.scaler.decide(seen)
        self.scaler.granted(self.at_s, found.num_replicas, seen)
        self.num = found.num_replicas
        return found

    def looks(self, rate: int, count: int) -> Scaling:
        for _ in range(count - 1):
            self.look(rate)
        return self.look(rate)


def test_as_many_as_the_rate_needs_and_the_reason_says_why() -> None:
    run = Run()

    found = run.looks(30, 15)

    assert 4 <= found.num_replicas <= 6
    assert found.reason.startswith("30.0 requests/s expected in ")
    assert "at 100 ms each: " in found.reason
    assert found.reason.endswith("keep 99.0% below 500 ms")


def test_without_a_measured_service_time_the_number_stays() -> None:
    run = Run(num=3)

    found = run.look(100, busy_s=None)

    assert (found.num_replicas, found.reason) == (3, "its service time is not measured yet")


def test_waiting_requests_that_cannot_be_in_time_are_answered_with_more_at_once() -> None:
    run = Run(num=2, upscale_delay_s=100)
    run.looks(10, 12)

    calm = run.look(10, num_waiting=4)
    found = run.look(10, num_waiting=200)

    assert not calm.is_guard
    assert found.is_guard
    assert found.num_replicas > 2
    assert "200 requests wait, the last of them 10.00 s" in found.reason


def test_a_larger_number_must_be_wanted_for_the_upscale_delay() -> None:
    run = Run(upscale_delay_s=15)
    before = run.looks(5, 20).num_replicas

    at_once = run.look(60)
    assert at_once.num_replicas == before
    assert "wanted for less than upscale_delay_s (15 s)" in at_once.reason
    assert run.looks(60, 30).num_replicas > 5


def test_a_smaller_number_must_be_wanted_for_the_downscale_delay() -> None:
    run = Run(downscale_delay_s=30)
    high = run.looks(50, 40).num_replicas

    assert run.looks(5, 15).num_replicas == high
    assert "stay for downscale_delay_s (30 s)" in run.look(5).reason
    assert run.looks(5, 40).num_replicas < high / 2


def test_a_restarted_scaler_takes_nothing_away_before_it_has_looked_long_enough() -> None:
    run = Run(num=12, downscale_delay_s=30)

    assert run.looks(5, 20).num_replicas == 12
    assert run.looks(5, 30).num_replicas < 4


def test_nobody_asking_ends_at_zero_and_the_first_request_ends_that_at_once() -> None:
    run = Run(min_replicas=0, downscale_delay_s=5, downscale_to_zero_delay_s=40)
    run.looks(10, 20)

    idle = run.looks(0, 35)
    assert idle.num_replicas == 1
    assert idle.reason == "nobody has asked for less than 40 s"
    assert run.looks(0, 20).num_replicas == 0
    woken = run.look(0, num_waiting=1)
    assert woken.num_replicas == 1
    assert woken.reason == "1 requests are held and no replica runs"


def test_a_variant_that_was_never_measured_goes_to_zero_too_when_nobody_asks() -> None:
    run = Run(num=0, min_replicas=0, downscale_delay_s=5, downscale_to_zero_delay_s=10)
    unmeasured = {"busy_s": None, "num_served": 0}
    woken = run.look(1, num_waiting=1, **unmeasured)

    for _ in range(9):
        assert run.look(0, **unmeasured).num_replicas == 1
    nums = [run.look(0, **unmeasured).num_replicas for _ in range(8)]

    assert woken.num_replicas == 1
    assert nums[-1] == 0


def test_bounds_and_the_least_step_hold() -> None:
    assert Run(max_replicas=3).looks(100, 20).num_replicas == 3
    assert "max_replicas is 3" in Run(max_replicas=3).looks(100, 20).reason
    assert Run(num=4, min_replicas=4, downscale_delay_s=2).looks(1, 20).num_replicas == 4
    small = Run(num=5, min_step=3).looks(56, 30)
    assert small.num_replicas == 5
    assert "is below min_step (3)" in small.reason


def test_answers_that_come_late_without_a_queue_add_a_replica() -> None:
    run = Run(num=3)
    run.looks(15, 20)
    before = run.num

    found = run.look(15, num_answered=1000, num_in_time=900)

    assert found.num_replicas == before + 1
    assert "were in time, of 99.0%: one replica more" in found.reason
    assert run.look(15, num_answered=1000, num_in_time=900).num_replicas == before + 1


def test_the_startup_time_is_learned() -> None:
    quick, slow = Run(startup_s=10), Run(startup_s=1)
    for run in (quick, slow):
        run.looks(5, 10)
    quick.looks(60, 12)
    for _ in range(12):
        slow.look(60, num_running=1)
    slow.looks(60, 2)

    assert quick.scaler.startup_s < 6
    assert slow.scaler.startup_s > 3


def test_replicas_that_were_taken_back_before_they_ran_teach_nothing_of_starting() -> None:
    run = Run(startup_s=1, downscale_delay_s=3)
    run.looks(5, 10)
    for _ in range(5):
        run.look(60, num_running=1)
    for _ in range(300):
        run.look(5, num_running=1)
    run.looks(60, 20)

    assert run.scaler.startup_s < 4


def test_an_engine_that_batches_well_needs_fewer_and_says_so() -> None:
    """With four replicas batches are of one row for ever: what larger ones cost is known anyway."""
    run = Run(num=4, max_replicas=50)
    for _ in range(40):
        found = run.look(60, batch_s={1: 0.1, 16: 0.175}, num_rows=60)

    assert found.wanted == 1
    assert "at 175 ms a batch of 16: 1 keep" in found.reason


def test_rows_of_a_request_count() -> None:
    run = Run(num=4, max_replicas=50)
    for _ in range(40):
        found = run.look(60, batch_s={1: 0.1, 16: 0.175}, num_rows=240)

    assert found.wanted == 4
