"""Large envelopes in shared memory, over real sockets between two ends of one test."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.delivery.node_link import Frame, NodeLink, NodeLinks, NodeListener
from actors.delivery.shelf import MAX_BYTES, MIN_BYTES, POOL_BYTES, Reader, Shelf

needs_memfd = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="shared memory by file descriptor is Linux's"
)
MEBIBYTE = 2**20


async def reversed_frame(frame: Frame, *_: object) -> bytes:
    return bytes(frame)[::-1]


def numbered(number: int, num_bytes: int = MEBIBYTE) -> bytes:
    return bytes([number]) + b"x" * (num_bytes - 1)


@asynccontextmanager
async def linked(folder: Path) -> AsyncIterator[NodeLink]:
    """A link whose ends know already that they can read each other's memory."""
    listener = NodeListener(folder / "a.sock", reversed_frame)
    await listener.start()
    links = NodeLinks(folder)
    link = await links.least_busy()
    assert link is not None
    # The first asks, the second lets the answers come in.
    for _ in range(2):
        await link.exchange(numbered(0))
    yield link
    links.close()
    await listener.drain()


@needs_memfd
async def test_large_envelopes_lie_in_shared_memory_and_small_ones_do_not(tmp_path: Path) -> None:
    async with linked(tmp_path) as link:
        before = link.shelf.num_put
        small = await link.exchange(b"abc")
        large = await link.exchange(numbered(7))

        assert (small, bytes(large)) == (b"cba", numbered(7)[::-1])
        assert isinstance(large, memoryview)
        assert large.readonly
        assert link.shelf.num_put == before + 1


@needs_memfd
async def test_segments_are_used_again(tmp_path: Path) -> None:
    async with linked(tmp_path) as link:
        for number in range(100):
            answer = await link.exchange(numbered(number))
            assert answer[-1] == number
            del answer

        assert link.shelf.num_put >= 100
        assert link.shelf.num_segments <= 4


@needs_memfd
async def test_an_answer_that_somebody_still_looks_at_is_not_written_over(tmp_path: Path) -> None:
    async with linked(tmp_path) as link:
        kept = [await link.exchange(numbered(number)) for number in range(5)]
        part = (await link.exchange(numbered(99)))[-1:]
        for number in range(50, 80):
            await link.exchange(numbered(number))

        assert [answer[-1] for answer in kept] == [0, 1, 2, 3, 4]
        assert part[0] == 99


@needs_memfd
async def test_what_finds_no_room_goes_through_the_socket(tmp_path: Path) -> None:
    too_many = POOL_BYTES // MEBIBYTE + 5
    async with linked(tmp_path) as link:
        kept = [await link.exchange(numbered(number)) for number in range(too_many)]
        big = await link.exchange(numbered(9, MAX_BYTES + 1))

        assert [answer[-1] for answer in kept] == list(range(too_many))
        assert isinstance(kept[-1], bytes)
        assert (len(big), big[-1]) == (MAX_BYTES + 1, 9)


@needs_memfd
async def test_many_at_once_are_each_answered_with_their_own(tmp_path: Path) -> None:
    async with linked(tmp_path) as link:
        answers = await asyncio.gather(*(link.exchange(numbered(n)) for n in range(100)))

    assert [answer[-1] for answer in answers] == list(range(100))


async def test_where_there_is_no_such_memory_everything_goes_through_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    async with linked(tmp_path) as link:
        answer = await link.exchange(numbered(3))

        assert isinstance(answer, bytes)
        assert answer[-1] == 3
        assert link.shelf.num_segments == 0


@needs_memfd
def test_without_descriptors_left_nothing_is_put_there(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf()
    assert shelf.hello() is not None

    def refused(name: str) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", refused)
    first, second = shelf.put(b"x" * MIN_BYTES), shelf.put(b"x" * MIN_BYTES)
    shelf.close()

    assert first is not None
    assert second is None
    assert Shelf().hello() is None


@needs_memfd
def test_memory_of_a_process_that_cannot_be_read_is_not_welcome() -> None:
    shelf = Shelf()
    hello = shelf.hello()
    assert hello is not None
    reader = Reader(lambda segment: None)

    assert reader.try_out(hello)
    shelf.close()
    assert not Reader(lambda segment: None).try_out(hello)


@needs_memfd
def test_a_segment_comes_back_when_its_last_view_goes() -> None:
    shelf, back = Shelf(), list[int]()
    reader = Reader(back.append)
    hello = shelf.hello()
    assert hello is not None
    assert reader.try_out(hello)
    note = shelf.put(b"x" * MIN_BYTES)
    assert note is not None

    view = reader.take(note)
    part = view[5:10]
    del view
    assert back == []
    del part
    assert len(back) == 1
    shelf.close()
