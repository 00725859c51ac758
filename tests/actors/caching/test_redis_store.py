"""The shared store against a real redis-server: alive, frozen, dead and full of rubbish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from actors.caching.redis_store import RedisStore
from cluster.config.cache import RedisConfig
from cluster.routing.cache_key import CacheKey
from tests.actors.caching.real_redis import needs_redis, redis_server
from tests.actors.caching.test_memory_store import Clock, key

pytestmark = needs_redis


@asynccontextmanager
async def store(url: str, clock: Clock, **config: object) -> AsyncIterator[RedisStore]:
    made = RedisStore(
        RedisConfig.model_validate({"url": url, "timeout_s": 0.5, **config}), clock=clock
    )
    try:
        yield made
    finally:
        await made.close()


async def test_what_one_door_stores_another_one_finds(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        async with store(server.url, Clock()) as here, store(server.url, Clock()) as there:
            here.put(key(1), b"\x00answer\xff", 60)
            await here.written()
            found = await there.get(key(1))
            assert await there.get(key(2)) is None

    assert found is not None
    assert found[0] == b"\x00answer\xff"
    assert 0 < found[1] <= 60


async def test_redis_forgets_an_answer_when_its_time_is_over(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        async with store(server.url, Clock()) as made:
            made.put(key(1), b"answer", 0.05)
            await made.written()
            while server.client().dbsize():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

            assert await made.get(key(1)) is None


async def test_keys_begin_with_the_prefix(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        async with store(server.url, Clock(), prefix="mine") as made:
            made.put(key(1), b"answer", 60)
            await made.written()

            assert server.client().keys() == [f"mine:answer:{key(1).hex()}".encode()]


async def test_a_dead_redis_is_a_miss_and_is_left_alone_for_a_while(tmp_path: Path) -> None:
    clock, failures = Clock(), []
    with redis_server(tmp_path) as server:
        config = RedisConfig(url=server.url, retry_after_s=5)
        made = RedisStore(config, on_failure=lambda: failures.append(1), clock=clock)
        server.kill()
        for _ in range(10):
            assert await made.get(key(1)) is None
        made.put(key(1), b"answer", 60)
        await made.written()
        assert len(failures) == 1
        clock.now_s += 6
        assert await made.get(key(1)) is None
        assert len(failures) == 2
        await made.close()


async def test_a_frozen_redis_costs_its_timeout_once(tmp_path: Path) -> None:
    clock = Clock()
    with redis_server(tmp_path) as server:
        async with store(server.url, clock, timeout_s=0.05) as made:
            made.put(key(1), b"answer", 60)
            await made.written()
            server.freeze()
            # Would wait for ever without its timeout, and ten times for it without its memory.
            found = await asyncio.gather(*(made.get(CacheKey(key(n))) for n in range(10)))
            assert found == [None] * 10
            assert await made.get(key(1)) is None


async def test_it_is_asked_again_when_it_is_back(tmp_path: Path) -> None:
    clock = Clock()
    with redis_server(tmp_path) as server:
        url = server.url
        async with store(url, clock, retry_after_s=5) as made:
            server.kill()
            assert await made.get(key(1)) is None
            (tmp_path / "redis.sock").unlink(missing_ok=True)
            with redis_server(tmp_path):
                clock.now_s += 6
                made.put(key(1), b"answer", 60)
                await made.written()
                found = await made.get(key(1))

    assert found is not None
