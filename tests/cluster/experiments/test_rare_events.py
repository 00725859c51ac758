from __future__ import annotations

import math

import numpy as np

from cluster.experiments.counts import ArmCounts, Stratum
from cluster.experiments.rare_events import log_evidence_of_more
from tests.cluster.experiments.making import measure


def _arms(errors_a: int, errors_b: int, *, n_a: int = 10_000, n_b: int = 1_000) -> Stratum:
    def arm(errors: int, n: int) -> ArmCounts:
        # Spread over the clusters: no two come together.
        return ArmCounts(errors=measure([1.0] * errors + [0.0] * (n - errors)))

    return Stratum(weights={}, arms={"a": arm(errors_a, n_a), "b": arm(errors_b, n_b)})


def test_as_many_errors_as_the_traffic_explains_are_no_evidence() -> None:
    assert log_evidence_of_more((_arms(100, 10),), "a", "b", tolerated=0.0) < 0


def test_a_handful_of_errors_where_the_control_has_none_is_enough() -> None:
    found = log_evidence_of_more((_arms(0, 6),), "a", "b", tolerated=0.0)

    assert found > math.log(1000)


def test_more_are_tolerated_when_more_are_tolerated() -> None:
    strata = (_arms(100, 20),)

    assert log_evidence_of_more(strata, "a", "b", tolerated=1.0) < 0
    assert log_evidence_of_more(strata, "a", "b", tolerated=0.0) > 0


def test_errors_that_come_together_count_for_less() -> None:
    at_once = Stratum(
        weights={},
        arms={
            "a": ArmCounts(errors=measure([0.0] * 1000)),
            "b": ArmCounts(errors=measure([1.0] * 8 + [0.0] * 992, lambda i: 0 if i < 8 else i)),
        },
    )

    together = log_evidence_of_more((at_once,), "a", "b", tolerated=0.0)
    apart = log_evidence_of_more((_arms(0, 8, n_a=1000, n_b=1000),), "a", "b", tolerated=0.0)

    assert together < apart / 3


def test_equal_rates_alarm_less_often_than_alpha_however_often_one_looks() -> None:
    random = np.random.default_rng(7)
    alarms = 0
    for _ in range(300):
        n_a = n_b = errors_a = errors_b = 0
        for _ in range(40):
            n_a, n_b = n_a + 450, n_b + 50
            errors_a += int(random.binomial(450, 0.01))
            errors_b += int(random.binomial(50, 0.01))
            stratum = _arms(errors_a, errors_b, n_a=n_a, n_b=n_b)
            if log_evidence_of_more((stratum,), "a", "b", tolerated=0.0) > math.log(20):
                alarms += 1
                break

    assert alarms <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05)
