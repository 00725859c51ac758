"""Callers of a Kubernetes Service: kube-proxy picks a ready endpoint for each new connection.

A connection stays with its endpoint for as long as it lasts, also when the endpoint is no longer
ready; only new ones go elsewhere. Callers are strict: no request is sent twice. The one thing that
every HTTP client does is done here too: a kept connection that the server has closed meanwhile is
not used again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

PORT = 8000
TIMEOUT_S = 60.0


@dataclass(slots=True)
class Service:
    """`ready`: addresses that new connections may go to; changed while requests run."""

    ready: set[str]
    random: random.Random

    def pick(self) -> str:
        return self.random.choice(sorted(self.ready))


@dataclass(slots=True)
class Tally:
    """`failed`: what went wrong -> how often, by kind of caller. `answered`: address -> count.
    `longest_s`: of an answered request."""

    sent: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    first_failed_s: list[float] = field(default_factory=list)
    longest_s: float = 0.0

    @property
    def num_failed(self) -> int:
        return sum(self.failed.values())


class Caller:
    """One caller with at most one connection. `keeps` it for the next request."""

    def __init__(self, service: Service, *, keeps: bool) -> None:
        self._service = service
        self._keeps = keeps
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.address = ""

    async def ask(self, path: str, body: bytes, head: bytes) -> int:
        """The status of one request. Raises: OSError, EOFError, TimeoutError."""
        async with asyncio.timeout(TIMEOUT_S):
            if self._reader is None or self._reader.at_eof():
                self.leave()
                self.address = self._service.pick()
                self._reader, self._writer = await asyncio.open_connection(self.address, PORT)
            assert self._writer is not None
            self._writer.write(
                b"POST %b HTTP/1.1\r\nHost: squadron\r\nContent-Length: %d\r\n%b%b\r\n"
                % (
                    path.encode(),
                    len(body),
                    head,
                    b"" if self._keeps else b"Connection: close\r\n",
                )
                + body
            )
            return await self._answer(self._reader)

    async def _answer(self, reader: asyncio.StreamReader) -> int:
        lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        status = int(lines[0].split()[1])
        headers = dict(line.split(b":", 1) for line in lines[1:] if line)
        await reader.readexactly(int(headers[b"content-length"]))
        if not self._keeps or b"close" in headers.get(b"connection", b""):
            self.leave()
        return status

    def leave(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Callers of three kinds that share `num_requests`, `rate_per_s` together. `num_slow` of them
    ask the model that takes long, so that some requests are always under way."""

    num_requests: int
    rate_per_s: float
    num_kept: int = 8
    num_new: int = 8
    num_slow: int = 4

    async def run(
        self,
        service: Service,
        tally: Tally,
        tell: Callable[[int], None],
        is_over: asyncio.Event | None = None,
    ) -> None:
        """`tell` hears how many were sent; `is_over` ends it before its number is reached."""
        over = is_over or asyncio.Event()
        numbers = itertools.takewhile(lambda _: not over.is_set(), range(self.num_requests))
        callers = [
            *(("kept", True) for _ in range(self.num_kept)),
            *(("new", False) for _ in range(self.num_new)),
            *(("slow", index % 2 == 0) for index in range(self.num_slow)),
        ]
        period_s = (self.num_kept + self.num_new) / self.rate_per_s
        async with asyncio.TaskGroup() as group:
            for index, (kind, keeps) in enumerate(callers):
                caller = Caller(service, keeps=keeps)
                offset_s = period_s * index / len(callers)
                group.create_task(self._one(caller, kind, numbers, tally, period_s, offset_s, tell))

    async def _one(
        self,
        caller: Caller,
        kind: str,
        numbers: Iterator[int],
        tally: Tally,
        period_s: float,
        offset_s: float,
        tell: Callable[[int], None],
    ) -> None:
        path, body, head = _slow() if kind == "slow" else _classify()
        await asyncio.sleep(offset_s)
        for _ in numbers:
            began_s = time.monotonic()
            tally.sent += 1
            tell(tally.sent)
            try:
                status = await caller.ask(path, body, head)
            except (OSError, EOFError, TimeoutError) as error:
                caller.leave()
                _fail(tally, f"{kind}: {type(error).__name__}")
            else:
                if status == 200:
                    tally.answered[caller.address] += 1
                    tally.longest_s = max(tally.longest_s, time.monotonic() - began_s)
                else:
                    _fail(tally, f"{kind}: {status}")
            await asyncio.sleep(max(0.0, began_s + period_s - time.monotonic()))
        caller.leave()


def _fail(tally: Tally, what: str) -> None:
    tally.failed[what] += 1
    tally.first_failed_s.append(time.monotonic())


def _classify() -> tuple[str, bytes, bytes]:
    """A sentence's embedding to the trained head, as binary tensor."""
    embedding = np.linspace(-1, 1, 384, dtype=np.float32)
    tensor = {
        "name": "embedding",
        "datatype": "FP32",
        "shape": [1, 384],
        "parameters": {"binary_data_size": embedding.nbytes},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    length = b"Inference-Header-Content-Length: %d\r\n" % len(head)
    return "/v2/models/sentiment-head/infer", head + embedding.tobytes(), length


def _slow() -> tuple[str, bytes, bytes]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    body = json.dumps({"inputs": [tensor]}).encode()
    return "/v2/models/patient/infer", body, b"Content-Type: application/json\r\n"
