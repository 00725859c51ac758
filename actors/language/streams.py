"""How a request reaches a language model's replica: by its prefix on this node, else by handle."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path

from actors.streams.link import SUFFIX, open_stream
from actors.streams.transport import StreamTransport
from cluster.config.language.settings import RoutingConfig
from cluster.protocols.envelope import Call, Reply, decode_replies, encode_calls
from cluster.protocols.openai.parameters import PREFIX, SESSION, WORK
from cluster.requests import Parameter
from cluster.routing.prefix import PrefixRouter, prefix_keys

DEFAULT_WORK = 64.0
"""Tokens that a request is taken for when its door did not say."""


class LanguageStreams:
    """A `StreamTransport`. Of one variant at one door."""

    def __init__(self, folder: Path, fallback: StreamTransport, config: RoutingConfig) -> None:
        self._folder = folder
        self._fallback = fallback
        self._config = config
        self._router = PrefixRouter(config)
        self._work: dict[str, float] = {}

    async def stream(self, call: Call) -> AsyncGenerator[Reply, None]:
        cost = _number(call.parameters.pop(WORK, DEFAULT_WORK))
        text = str(call.parameters.pop(PREFIX, "")) or _text(call)
        session = str(call.parameters.pop(SESSION, ""))
        keys = prefix_keys(text, self._config.block_chars)
        # What another attempt needs again.
        kept: dict[str, Parameter] = {WORK: cost, PREFIX: text, SESSION: session}
        message = encode_calls([call])
        call.parameters |= kept
        while names := self._names():
            work = {name: self._work.get(name, 0.0) for name in names}
            draws = (random.random(), random.random())
            name = self._router.choose(keys, work, cost=cost, session=session, draws=draws).replica
            self._router.sent(keys, name, work)
            self._work[name] = self._work.get(name, 0.0) + cost
            try:
                async with aclosing(open_stream(self._folder / name, message)) as parts:
                    async for part in parts:
                        (reply,) = decode_replies(part)
                        yield reply
                return
            except (ConnectionRefusedError, FileNotFoundError):
                # Left behind by a killed process; nothing was sent.
                self._router.forget(name)
                with suppress(FileNotFoundError):
                    await asyncio.to_thread(os.unlink, self._folder / name)
            finally:
                self._work[name] -= cost
                if not self._work[name]:
                    del self._work[name]
        async with aclosing(self._fallback.stream(call)) as replies:
            async for reply in replies:
                yield reply

    def _names(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._folder) if name.endswith(SUFFIX)]
        except FileNotFoundError:
            return []


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and value > 0 else DEFAULT_WORK


def _text(call: Call) -> str:
    return bytes(call.inputs[0].array.item())[:16384].decode("utf-8", "replace")
