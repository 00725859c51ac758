"""A redis-server of this test's own, on a Unix socket in its folder."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

PROGRAM = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(
    PROGRAM is None, reason="no redis-server on this machine (Debian: apt-get install redis-server)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisServer:
    url: str
    process: subprocess.Popen[bytes]

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def freeze(self) -> None:
        """It takes connections and answers nothing any more."""
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    assert PROGRAM is not None
    path = folder / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([PROGRAM, *options, "--dir", str(folder)], stdout=subprocess.DEVNULL)
    try:
        server = RedisServer(url=f"unix://{path}", process=process)
        while not _answers(server):
            assert process.poll() is None, "redis-server ended at once"
            time.sleep(0.01)
        yield server
    finally:
        process.kill()
        process.wait()


def _answers(server: RedisServer) -> bool:
    """The socket's file is there before anybody listens, and may be that of one that was killed."""
    with server.client() as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
