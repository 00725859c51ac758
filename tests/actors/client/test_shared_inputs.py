"""Large inputs by shared memory to a door on this machine."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cluster.client import Client
from cluster.errors import InvalidRequest, Unsupported
from tests.actors.client.doors import http_door

WIDE = 4096


def objects() -> set[str]:
    """Of ours, in this machine's shared memory."""
    return {path.name for path in Path("/dev/shm").glob("squadron_*")}


async def test_large_inputs_are_read_from_memory_and_nothing_is_left(tmp_path: Path) -> None:
    before = objects()
    async with http_door(tmp_path, shared_memory={"enabled": True}) as (door, url):
        door.widen(WIDE)

        def work() -> None:
            with Client(url, shared_memory=True) as client:
                model = client.load_model("simple")
                b = np.ones((8, WIDE), np.int32)
                for value in range(3):
                    a = np.full((8, WIDE), value, np.int32)
                    assert np.array_equal(model.predict(INPUT0=a, INPUT1=b)["OUTPUT0"], a + b)
                assert len(objects() - before) == 1
                with pytest.raises(InvalidRequest):
                    model.predict(INPUT0=np.ones((8, 2 * WIDE), np.int32), INPUT1=b)
                with ThreadPoolExecutor(4) as pool:
                    sums = pool.map(
                        lambda v: model.predict(INPUT0=np.full((8, WIDE), v, np.int32), INPUT1=b)[
                            "OUTPUT0"
                        ][7, -1],
                        range(16),
                    )
                    assert [int(each) for each in sums] == list(range(1, 17))

        await asyncio.to_thread(work)
        bodies = [len(r.body) for r in door.seen if r.path.endswith("/infer")]
        assert max(bodies) < 1024
    assert objects() == before


async def test_a_server_without_shared_memory_says_how_to_switch_it_on(tmp_path: Path) -> None:
    before = objects()
    async with http_door(tmp_path) as (door, url):
        door.widen(WIDE)

        def work() -> None:
            with Client(url, shared_memory=True) as client:
                model = client.load_model("simple")
                wide = np.ones((8, WIDE), np.int32)
                with pytest.raises(Unsupported, match=r"shared_memory\.enabled"):
                    model.predict(INPUT0=wide, INPUT1=wide)

        await asyncio.to_thread(work)
    assert objects() == before
