from __future__ import annotations

import pytest

from cluster.config.language.settings import PromptQueueConfig
from cluster.errors import Overloaded
from cluster.scheduling.token_gate import TokenGate, Work


def work(name: str, *, choices: int = 1, tokens: int = 10, level: int = 1) -> Work[str]:
    return Work(item=name, num_choices=choices, num_tokens=tokens, level=level)


def gate(*, places: int = 2, requests: int = 2, tokens: int = 100) -> TokenGate[str]:
    return TokenGate(PromptQueueConfig(max_requests=requests, max_tokens=tokens), places=places)


def test_no_more_go_through_than_there_are_places() -> None:
    tested = gate(places=2)

    assert [tested.enter(work(name)) for name in "abc"] == [True, True, False]
    assert (tested.num_running, tested.num_waiting) == (2, 1)


def test_whoever_waits_goes_first_when_a_place_is_free() -> None:
    tested = gate(places=1)
    first = work("a")
    tested.enter(first)
    tested.enter(work("b"))
    tested.enter(work("c"))

    tested.leave(first)

    assert [each.item for each in tested.ready()] == ["b"]
    assert tested.ready() == []


def test_a_smaller_level_goes_first_and_within_one_who_came_first() -> None:
    tested = gate(places=1, requests=9, tokens=999)
    first = work("first")
    tested.enter(first)
    for name, level in (("c", 3), ("a", 1), ("d", 3), ("b", 2), ("e", 3)):
        tested.enter(work(name, level=level))

    order = []
    left = first
    while tested.num_running:
        tested.leave(left)
        for left in tested.ready():
            order.append(left.item)

    assert order == ["a", "b", "c", "d", "e"]


def test_a_place_that_a_lower_level_cannot_use_is_taken() -> None:
    tested = gate(places=2)
    tested.enter(work("a"))
    assert not tested.enter(work("wide", choices=2, level=2))

    assert tested.enter(work("narrow", level=1))
    assert not tested.enter(work("late", level=1))


def test_nobody_overtakes_a_request_of_many_choices() -> None:
    tested = gate(places=2)
    tested.enter(work("a"))
    assert not tested.enter(work("wide", choices=2))

    assert not tested.enter(work("narrow"))


def test_more_choices_than_places_go_alone() -> None:
    assert gate(places=2).enter(work("wide", choices=9))


def test_too_many_waiting_requests_are_refused() -> None:
    tested = gate(places=1, requests=1)
    tested.enter(work("a"))
    tested.enter(work("b"))

    with pytest.raises(Overloaded, match="1 requests wait"):
        tested.enter(work("c"))


def test_too_many_waiting_tokens_are_refused() -> None:
    tested = gate(places=1, tokens=25)
    tested.enter(work("a", tokens=1000))
    tested.enter(work("b", tokens=20))

    with pytest.raises(Overloaded, match="20 tokens wait for the model and this request has 6"):
        tested.enter(work("c", tokens=6))


def test_what_is_withdrawn_no_longer_counts() -> None:
    tested = gate(places=1, tokens=20)
    running, waiting = work("a"), work("b", tokens=20)
    tested.enter(running)
    tested.enter(waiting)

    assert tested.withdraw(waiting)
    assert not tested.withdraw(running)
    assert tested.waiting_tokens == 0
    assert not tested.enter(work("c", tokens=20))
