"""Which replica a sequence belongs to."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cluster.routing.affinity import rank

NAMES = [f"replica-{i}" for i in range(5)]


@given(key=st.integers() | st.text(), gone=st.sampled_from(NAMES))
def test_only_the_keys_of_a_replica_that_went_move(key: int | str, gone: str) -> None:
    before = rank(key, NAMES)

    assert rank(key, [name for name in NAMES if name != gone]) == [n for n in before if n != gone]


def test_keys_spread_over_the_replicas() -> None:
    counts = Counter(rank(key, NAMES)[0] for key in range(5000))

    assert min(counts.values()) > 800


def test_the_integer_and_the_text_are_two_keys() -> None:
    assert any(rank(key, NAMES) != rank(str(key), NAMES) for key in range(10))
