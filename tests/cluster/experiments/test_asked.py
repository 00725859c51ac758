from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.experiments.asked import (
    MAX_PLACES,
    MAX_RUNS,
    Asked,
    Place,
    digests_in,
    digests_of,
    pack,
)

A, B = (Place(arm=arm, weights={"a": 9, "b": 1}) for arm in "ab")


class Log:
    """Requests and ratings under growing numbers."""

    def __init__(self, remember: int = 1_000_000) -> None:
        self.asked = Asked(remember)
        self.number = 0

    def add(self, place: Place, ids: Sequence[str], cluster: int = 0) -> None:
        self.number += 99
        self.asked.add(self.number, [(place, pack(ids, bytes([cluster]) * len(ids)))])

    def rate(self, *ids: str) -> list[tuple[int, str, int]]:
        """Index, arm and cluster of those that were found."""
        self.number += 99
        met = self.asked.rate(self.number, digests_of(ids))
        return sorted((each.index, each.place.arm, each.cluster) for each in met)


def test_a_request_is_found_with_its_arm_and_cluster_and_is_rated_once() -> None:
    log = Log()
    log.add(A, ["r1", "r2"], cluster=63)
    log.add(B, ["r3"], cluster=7)

    assert log.rate("r3", "nobody's", "r1", "r3") == [(0, "b", 7), (2, "a", 63)]
    assert log.rate("r1", "r2", "r3") == [(1, "a", 63)]


def test_an_id_that_is_used_again_is_that_of_its_last_request() -> None:
    log = Log()
    log.add(A, ["1"])
    log.add(B, ["1"])
    assert log.rate("1") == [(0, "b", 0)]
    assert log.rate("1") == []

    log.add(A, ["1"])

    assert log.rate("1") == [(0, "a", 0)]


def test_a_digest_depends_on_its_id_only() -> None:
    alone = [int(digests_of([each])[0]) for each in ("a", "a" * 9, "a" * 128, "é")]

    assert digests_of(["a", "a" * 9, "a" * 128, "é"]).tolist() == alone
    assert len(set(alone)) == 4
    # What is kept by one version has to be found by the next.
    assert [hex(each) for each in digests_of(["r1", "0f" * 16])] == PINNED
    assert digests_in(pack(["a", "é"], b"\x05\x3f")).tolist() == [alone[0], alone[3]]


PINNED = ["0x7c813c02a6e00000", "0x219e765cec5a0000"]


def test_ids_that_are_alike_have_different_digests() -> None:
    ids = [f"{prefix}-{n:x}" for prefix in ("00ff00ff00ff", "ff00ff00ff00") for n in range(100_000)]

    assert len(np.unique(digests_of(ids))) == len(ids)


@given(
    st.lists(
        st.tuples(st.booleans(), st.sets(st.integers(0, 300), min_size=1, max_size=60)),
        max_size=60,
    )
)
def test_runs_say_what_a_dictionary_would(turns: list[tuple[bool, set[int]]]) -> None:
    log, known = Log(), dict[str, str]()
    for turn, (is_rating, numbers) in enumerate(turns):
        ids = [f"r{number}" for number in sorted(numbers)]
        if is_rating:
            wanted = [(at, known.pop(each), 0) for at, each in enumerate(ids) if each in known]
            assert log.rate(*ids) == wanted
        else:
            place = (A, B)[turn % 2]
            log.add(place, ids)
            known.update(dict.fromkeys(ids, place.arm))


def test_at_least_the_last_ones_are_remembered_and_not_many_more() -> None:
    log = Log(remember=10_000)
    for first in range(0, 100_000, 50):
        log.add(A, [f"r{number}" for number in range(first, first + 50)])

    runs = log.asked.runs
    assert 10_000 <= sum(len(run.entries) for run in runs) < 11_500
    assert len(runs) < 50
    assert [run.number for run in runs] == sorted(run.number for run in runs)
    assert len(log.rate(*[f"r{number}" for number in range(90_000, 100_000)])) == 10_000
    assert log.rate("r80000") == []


@pytest.mark.parametrize("at_once", [1, 3 * MAX_PLACES])
def test_any_number_of_weights_is_told_apart(at_once: int) -> None:
    places = [Place(arm="a", weights={"a": 1, "b": n}) for n in range(3 * MAX_PLACES)]
    asked = Asked(1_000_000)
    for first in range(0, len(places), at_once):
        some = enumerate(places[first : first + at_once], first)
        asked.add(99 * (first + 1), [(place, pack([f"r{at}"], b"\0")) for at, place in some])

    met = asked.rate(10**9, digests_of([f"r{at}" for at in range(len(places))]))

    assert len(asked.runs) <= MAX_RUNS
    assert {each.index: each.place for each in met} == dict(enumerate(places))
