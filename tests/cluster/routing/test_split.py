from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.routing.split import Arm, choose_arm

NINETY_TEN = (Arm(variant="a", weight=90), Arm(variant="b", weight=10))


def share_of(variant: str, arms: tuple[Arm, ...], *, num_users: int = 20_000) -> float:
    hits = sum(
        choose_arm(arms, experiment="e", key=f"user-{i}", draw=0.0).variant == variant
        for i in range(num_users)
    )
    return hits / num_users


def test_a_user_always_meets_the_same_arm() -> None:
    choices = {choose_arm(NINETY_TEN, experiment="e", key="ada", draw=d / 10) for d in range(10)}

    assert len(choices) == 1
    assert choices.pop().reason == "sticky by key"


def test_users_split_by_weight() -> None:
    error = 4 * math.sqrt(0.1 * 0.9 / 20_000)

    assert share_of("b", NINETY_TEN) == pytest.approx(0.10, abs=error)


def test_a_change_of_weights_moves_only_as_many_users_as_it_must() -> None:
    before, after = NINETY_TEN, (Arm(variant="a", weight=80), Arm(variant="b", weight=20))
    moved = back = 0
    for i in range(20_000):
        was = choose_arm(before, experiment="e", key=f"user-{i}", draw=0.0).variant
        now = choose_arm(after, experiment="e", key=f"user-{i}", draw=0.0).variant
        moved += (was, now) == ("a", "b")
        back += (was, now) == ("b", "a")

    assert back == 0
    assert moved / 20_000 == pytest.approx(0.10, abs=0.01)


def test_two_experiments_split_the_same_users_independently() -> None:
    both = sum(
        choose_arm(NINETY_TEN, experiment="e", key=str(i), draw=0).variant == "b"
        and choose_arm(NINETY_TEN, experiment="f", key=str(i), draw=0).variant == "b"
        for i in range(20_000)
    )

    assert both / 20_000 == pytest.approx(0.01, abs=0.004)


@given(st.floats(0, 1, exclude_max=True))
def test_a_draw_without_a_key_lands_on_the_arm_whose_share_covers_it(draw: float) -> None:
    chosen = choose_arm(NINETY_TEN, experiment="e", key="", draw=draw)

    assert chosen.variant == ("a" if draw < 0.9 else "b")


def test_an_arm_of_weight_zero_is_never_chosen() -> None:
    arms = (Arm(variant="a", weight=0), Arm(variant="b", weight=1))

    assert share_of("a", arms, num_users=500) == 0
    assert choose_arm(arms, experiment="e", key="", draw=0.0).variant == "b"
