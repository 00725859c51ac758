"""Identical requests under way: one computation, and what happens when callers leave."""

from __future__ import annotations

import asyncio

import pytest

from actors.caching.flights import Flights
from cluster.errors import DeadlineExceeded, EngineFailed


class Work:
    """Ends when `open` is set."""

    def __init__(self, error: Exception | None = None) -> None:
        self.num_begun = 0
        self.num_cancelled = 0
        self.open = asyncio.Event()
        self._error = error

    async def __call__(self) -> int:
        self.num_begun += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        if self._error is not None:
            raise self._error
        return self.num_begun


def soon() -> float:
    return asyncio.get_running_loop().time() + 60


async def begun(work: Work) -> None:
    while work.num_begun == 0:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_a_hundred_identical_requests_are_computed_once() -> None:
    flights, work = Flights[str, int](), Work()
    asked = [asyncio.ensure_future(flights.join("k", soon(), work)) for _ in range(100)]
    await begun(work)
    work.open.set()

    results = await asyncio.gather(*asked)

    assert work.num_begun == 1
    assert [value for value, _ in results] == [1] * 100
    assert [is_own for _, is_own in results] == [True] + [False] * 99


async def test_other_keys_and_later_requests_are_computed_by_themselves() -> None:
    flights, work = Flights[str, int](), Work()
    work.open.set()

    await asyncio.gather(*(flights.join(key, soon(), work) for key in "abc"))
    await flights.join("a", soon(), work)

    assert work.num_begun == 4


async def test_an_error_is_everybodys_and_is_not_kept() -> None:
    flights, work = Flights[str, int](), Work(EngineFailed("boom"))
    asked = [asyncio.ensure_future(flights.join("k", soon(), work)) for _ in range(3)]
    await begun(work)
    work.open.set()
    results = await asyncio.gather(*asked, return_exceptions=True)

    assert [str(result) for result in results] == ["boom"] * 3
    with pytest.raises(EngineFailed):
        await flights.join("k", soon(), work)
    assert work.num_begun == 2


async def test_the_work_goes_on_while_anybody_waits_for_it() -> None:
    flights, work = Flights[str, int](), Work()
    first, second = (asyncio.ensure_future(flights.join("k", soon(), work)) for _ in range(2))
    await begun(work)
    first.cancel()
    await asyncio.wait([first])
    work.open.set()

    assert await second == (1, False)
    assert work.num_cancelled == 0


async def test_the_work_is_cancelled_when_the_last_one_leaves() -> None:
    flights, work = Flights[str, int](), Work()
    asked = [asyncio.ensure_future(flights.join("k", soon(), work)) for _ in range(3)]
    await begun(work)
    for task in asked:
        task.cancel()
    await asyncio.wait(asked)
    while not work.num_cancelled:  # noqa: ASYNC110
        await asyncio.sleep(0)
    # Who comes now begins anew.
    work.open.set()

    assert await flights.join("k", soon(), work) == (2, True)


async def test_each_caller_keeps_its_own_deadline() -> None:
    flights, work = Flights[str, int](), Work()
    patient = asyncio.ensure_future(flights.join("k", soon(), work))
    await begun(work)

    with pytest.raises(DeadlineExceeded):
        await flights.join("k", asyncio.get_running_loop().time() - 1, work)
    work.open.set()

    assert await patient == (1, True)


async def test_who_joined_a_work_with_too_short_a_deadline_begins_anew() -> None:
    flights = Flights[str, int]()
    too_short, work = Work(DeadlineExceeded("late")), Work()
    first = asyncio.ensure_future(flights.join("k", soon(), too_short))
    await begun(too_short)
    second = asyncio.ensure_future(flights.join("k", soon(), work))
    await asyncio.sleep(0)
    too_short.open.set()
    work.open.set()

    with pytest.raises(DeadlineExceeded):
        await first
    assert await second == (1, True)
