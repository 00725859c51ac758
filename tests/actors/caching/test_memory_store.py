"""The memory of the response cache, with a clock that only moves when it is told."""

from __future__ import annotations

from actors.caching.memory_store import ENTRY_BYTES, MemoryStore
from cluster.routing.cache_key import CacheKey


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def key(number: int) -> CacheKey:
    return CacheKey(number.to_bytes(32, "little"))


def test_an_answer_is_kept_for_its_time_and_no_longer() -> None:
    clock = Clock()
    store = MemoryStore(10_000, clock)
    store.put(key(1), b"short", 5)
    store.put(key(2), b"long", 50)

    clock.now_s += 4.9
    assert (store.get(key(1)), store.get(key(2))) == (b"short", b"long")
    clock.now_s += 0.2
    assert (store.get(key(1)), store.get(key(2))) == (None, b"long")
    assert store.size_bytes == len(b"long") + ENTRY_BYTES


def test_the_store_never_holds_more_bytes_than_it_may() -> None:
    size = 10 * (ENTRY_BYTES + 100)
    store = MemoryStore(size, Clock())
    for number in range(1000):
        store.put(key(number), bytes(number % 200), 60)
        assert store.size_bytes <= size

    assert store.get(key(999)) is not None
    assert store.get(key(0)) is None


def test_the_least_recently_used_goes_first() -> None:
    store = MemoryStore(3 * (ENTRY_BYTES + 1), Clock())
    for number in range(3):
        store.put(key(number), b"x", 60)
    store.get(key(0))
    store.put(key(3), b"x", 60)

    assert [store.get(key(n)) is not None for n in range(4)] == [True, False, True, True]


def test_an_answer_larger_than_the_store_is_not_kept() -> None:
    store = MemoryStore(1000, Clock())
    store.put(key(1), b"small", 60)
    store.put(key(2), bytes(1000), 60)

    assert store.get(key(2)) is None
    assert store.get(key(1)) == b"small"
