from __future__ import annotations

from cluster.experiments.callers import MAX_CALLERS, Callers, digest_of


def test_a_caller_is_new_once() -> None:
    callers = Callers()

    assert callers.is_new(digest_of("anna"))
    assert not callers.is_new(digest_of("anna"))


def test_what_is_kept_is_known_again() -> None:
    callers = Callers()
    callers.is_new(digest_of("anna"))

    again = Callers(callers.digests)

    assert not again.is_new(digest_of("anna"))
    assert again.is_new(digest_of("ben"))


def test_the_number_of_callers_is_bounded() -> None:
    callers = Callers()

    new = sum(callers.is_new(number) for number in range(2 * MAX_CALLERS))

    assert new == len(callers.digests) == MAX_CALLERS
