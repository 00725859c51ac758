"""Regions over real shared-memory objects. Two `SharedMemory` on one folder are two doors: what
they share is the folder, and its locks belong to open files, not to processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from pathlib import Path

import pytest

from actors.extensions.cuda_memory import CudaMemory
from actors.extensions.shared_memory import SharedMemory
from cluster.config.server import SharedMemoryConfig
from cluster.errors import (
    AlreadyExists,
    Forbidden,
    InvalidRequest,
    RegionNotFound,
    RegionNotOpened,
    Unsupported,
)
from cluster.requests import RegionSlice, RequestedOutput
from tests.actors.extensions.objects import PREFIX, shared_object


def door(folder: Path, **config: object) -> SharedMemory:
    chosen = {"enabled": True, "prefixes": ("/squadron_test_",), **config}
    return SharedMemory(SharedMemoryConfig.model_validate(chosen), folder, CudaMemory())


def part(offset: int = 0, byte_size: int = 8, region: str = "r") -> RegionSlice:
    return RegionSlice(region=region, offset=offset, byte_size=byte_size)


def output(place: RegionSlice) -> list[RequestedOutput]:
    return [RequestedOutput(name="y", place=place)]


async def off_the_list(memory: SharedMemory) -> None:
    """Until the registry's thread, which no event of this loop can tell of, has removed all."""
    while memory.status():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_a_registered_region_is_read_and_written_at_its_offset(tmp_path: Path) -> None:
    memory = door(tmp_path)
    with shared_object(64) as shared:
        await memory.register("r", shared.key, 16, 32)
        shared.put(b"question", at=20)

        assert memory.read(part(offset=4)) == b"question"
        with memory.held(output(part(offset=8))) as places:
            places.write(part(offset=8), b"response")

        assert shared.get(8, at=24) == b"response"
        assert memory.status() == [{"name": "r", "key": shared.key, "offset": 16, "byte_size": 32}]


async def test_what_is_read_does_not_change_with_the_object(tmp_path: Path) -> None:
    memory = door(tmp_path)
    with shared_object(8) as shared:
        await memory.register("r", shared.key, 0, 8)
        shared.put(b"validate")
        data = memory.read(part())
        shared.put(b"tampered")

    assert data == b"validate"


async def test_an_object_cut_short_is_an_error_of_the_request(tmp_path: Path) -> None:
    """A mapping would end this process with SIGBUS here."""
    memory = door(tmp_path)
    with shared_object(8192) as shared:
        await memory.register("r", shared.key, 0, 8192)
        with memory.held(output(part())) as places:
            shared.cut(4)

            with pytest.raises(InvalidRequest, match="has become shorter"):
                memory.read(part(byte_size=8192))
            with pytest.raises(InvalidRequest, match="has become shorter"):
                places.write(part(), b"response")
        assert shared.path.stat().st_size == 4


async def test_a_region_deleted_under_a_request_stays_until_the_request_ends(
    tmp_path: Path,
) -> None:
    memory = door(tmp_path)
    with shared_object(8) as shared, shared.path.open("rb") as seen_by_the_caller:
        await memory.register("r", shared.key, 0, 8)
        with memory.held(output(part())) as places:
            shared.path.unlink()
            unregistering = asyncio.ensure_future(memory.unregister("r"))
            await off_the_list(memory)
            assert not unregistering.done()
            with pytest.raises(RegionNotFound):
                memory.read(part())
            places.write(part(), b"response")
        await unregistering

        assert seen_by_the_caller.read() == b"response"


async def test_unregistering_at_one_door_waits_for_requests_at_another(tmp_path: Path) -> None:
    here, there = door(tmp_path), door(tmp_path)
    with shared_object(8) as shared:
        await here.register("r", shared.key, 0, 8)
        with there.held(output(part())) as places:
            unregistering = asyncio.ensure_future(here.unregister("r"))
            await off_the_list(here)
            assert not unregistering.done()
            places.write(part(), b"response")
        await unregistering

        assert shared.get(8) == b"response"
        with pytest.raises(RegionNotFound):
            there.read(part())


async def test_every_door_of_a_node_knows_a_registration(tmp_path: Path) -> None:
    here, there = door(tmp_path), door(tmp_path)
    with shared_object(8) as first, shared_object(8) as second:
        first.put(b"the 1st.")
        second.put(b"the 2nd.")
        await here.register("r", first.key, 0, 8)
        assert there.read(part()) == b"the 1st."
        await there.unregister("r")
        await there.register("r", second.key, 0, 8)

        assert here.read(part()) == b"the 2nd."


async def test_another_door_finds_an_object_whose_key_is_gone_or_means_another(
    tmp_path: Path,
) -> None:
    here = door(tmp_path)
    with shared_object(8) as shared:
        shared.put(b"original")
        await here.register("r", shared.key, 0, 8)
        shared.path.unlink()
        assert door(tmp_path).read(part()) == b"original"
        shared.path.write_bytes(b"impostor")

        assert door(tmp_path).read(part()) == b"original"


def _hold(folder: Path, ready: object, end: object) -> None:
    memory = door(folder)
    with memory.held(output(part())):
        ready.set()  # type: ignore[attr-defined]
        end.wait()  # type: ignore[attr-defined]
        os._exit(9)


async def test_a_door_that_dies_lets_go_of_its_regions(tmp_path: Path) -> None:
    here = door(tmp_path)
    spawning = multiprocessing.get_context("spawn")
    ready, end = spawning.Event(), spawning.Event()
    with shared_object(8) as shared:
        await here.register("r", shared.key, 0, 8)
        other = spawning.Process(target=_hold, args=(tmp_path, ready, end))
        other.start()
        await asyncio.to_thread(ready.wait)
        unregistering = asyncio.ensure_future(here.unregister("r"))
        await off_the_list(here)
        assert not unregistering.done()
        end.set()
        await unregistering
        await asyncio.to_thread(other.join)

    assert other.exitcode == 9


async def test_a_name_is_registered_once(tmp_path: Path) -> None:
    with shared_object(8) as shared:
        await door(tmp_path).register("r", shared.key, 0, 8)

        with pytest.raises(AlreadyExists, match="shared memory region 'r' already in manager"):
            await door(tmp_path).register("r", shared.key, 0, 4)


async def test_concurrent_registrations_of_one_name_have_one_winner(tmp_path: Path) -> None:
    doors = [door(tmp_path) for _ in range(4)]
    with shared_object(8) as shared:
        tries = [each.register("r", shared.key, 0, 8) for each in doors for _ in range(4)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert [each.read(part()) for each in doors] == [bytes(8)] * 4

    assert [result for result in results if result is None] == [None]
    assert {type(result) for result in results if result is not None} == {AlreadyExists}


async def test_a_missing_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegionNotOpened, match=f"^Unable to open .* region: '{PREFIX}none'$"):
        await door(tmp_path).register("r", f"{PREFIX}none", 0, 8)


async def test_what_is_no_plain_object_is_not_opened(tmp_path: Path) -> None:
    with shared_object(8) as shared:
        shared.path.unlink()
        shared.path.symlink_to("/etc/passwd")
        with pytest.raises(RegionNotOpened):
            await door(tmp_path).register("r", shared.key, 0, 8)
        shared.path.unlink()
        os.mkfifo(shared.path)
        with pytest.raises(RegionNotOpened):
            await door(tmp_path).register("r", shared.key, 0, 8)


async def test_a_region_beyond_its_object_is_refused_and_leaves_nothing_open(
    tmp_path: Path,
) -> None:
    memory = door(tmp_path)
    with shared_object(64) as shared:
        before = len(os.listdir("/proc/self/fd"))
        for offset, byte_size in ((0, 65), (1, 64), (64, 1), (2**64 - 1, 2)):
            with pytest.raises(InvalidRequest, match=r"failed to register .*invalid args"):
                await memory.register("r", shared.key, offset, byte_size)

    assert len(os.listdir("/proc/self/fd")) == before
    assert memory.status() == []


async def test_registering_and_unregistering_leaves_nothing_behind(tmp_path: Path) -> None:
    here, there = door(tmp_path), door(tmp_path)
    with shared_object(8) as shared:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            await here.register("r", shared.key, 0, 8)
            there.read(part())
            await there.unregister()
        for each in (here, there):
            with pytest.raises(RegionNotFound):
                each.read(part())

    assert len(os.listdir("/proc/self/fd")) == before
    assert [name for name in os.listdir(tmp_path) if name.endswith("lock")] == ["registry.lock"]


async def test_the_number_of_regions_is_bounded(tmp_path: Path) -> None:
    memory = door(tmp_path, max_regions=2)
    with shared_object(8) as shared:
        for name in ("a", "b"):
            await memory.register(name, shared.key, 0, 8)
        with pytest.raises(InvalidRequest, match="max_regions"):
            await memory.register("c", shared.key, 0, 8)


async def test_an_unknown_region_has_no_status_and_can_be_unregistered(tmp_path: Path) -> None:
    memory = door(tmp_path)

    with pytest.raises(RegionNotFound, match="Unable to find system shared memory region: 'r'"):
        memory.status("r")
    with pytest.raises(RegionNotFound, match="Unable to find shared memory region: 'r'"):
        memory.read(part())
    await memory.unregister("r")


async def test_shared_memory_is_off_by_default(tmp_path: Path) -> None:
    memory = SharedMemory(SharedMemoryConfig(), tmp_path, CudaMemory())

    with pytest.raises(Unsupported, match=r"^Client shared memory is disabled"):
        memory.status()
    with pytest.raises(Unsupported, match=r"^Client shared memory is disabled"):
        await memory.register("r", "/squadron_x", 0, 8)
    with pytest.raises(Unsupported, match=r"^Client shared memory is disabled"):
        memory.cuda_register("r", bytes(64), 0, 8)


async def test_callers_on_other_machines_use_no_region(tmp_path: Path) -> None:
    memory = door(tmp_path)

    with pytest.raises(Forbidden):
        memory.regions(is_local=False).read(part())
