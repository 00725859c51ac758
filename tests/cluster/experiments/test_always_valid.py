from __future__ import annotations

import math

import numpy as np
import pytest

from cluster.experiments.always_valid import half_width, log_evidence, log_evidence_above


def test_the_evidence_is_the_likelihood_ratio_averaged_over_the_expected_effects() -> None:
    """The closed form against the integral that it stands for."""
    x, variance, tau = 0.07, 0.0004, 0.1
    effects = np.linspace(-1, 1, 200_001)
    prior = np.exp(-(effects**2) / (2 * tau**2)) / (tau * math.sqrt(2 * math.pi))
    ratio = np.exp((x**2 - (x - effects) ** 2) / (2 * variance))
    step = effects[1] - effects[0]

    both = float((prior * ratio).sum() * step)
    above = float((2 * prior * ratio)[effects > 0].sum() * step)

    assert math.exp(log_evidence(x, variance, tau)) == pytest.approx(both, rel=1e-4)
    assert math.exp(log_evidence_above(x, variance, tau)) == pytest.approx(above, rel=1e-3)


def test_the_interval_leaves_out_zero_exactly_when_the_p_value_is_below_alpha() -> None:
    variance, tau, alpha = 0.001, 0.1, 0.05
    width = float(half_width(variance, tau, alpha))

    assert log_evidence(width * 1.0001, variance, tau) > -math.log(alpha)
    assert log_evidence(width * 0.9999, variance, tau) < -math.log(alpha)


def test_an_effect_in_the_good_direction_is_no_evidence_of_harm() -> None:
    assert log_evidence_above(-0.5, 0.0001, 0.1) < 0


def test_the_interval_narrows_as_the_variance_falls() -> None:
    assert half_width(0.0001, 0.1, 0.05) < half_width(0.001, 0.1, 0.05)
