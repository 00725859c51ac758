"""gRPC calls behind API keys: the key is in the metadata `authorization`, as over HTTP. A message
that came compressed is expanded for callers with a key only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from actors.access.callers import ASKING, Asking, Callers, write_down
from actors.listeners.restrict import Restrictions, Streaming, Unary
from cluster.access.keys import Caller
from cluster.access.needs import Need, check_need, need_of_rpc
from cluster.errors import Forbidden, RateLimited, Unauthorized
from cluster.protocols import v2_grpc

AUTHORIZATION = "authorization"

Expand = Callable[[bytes], Awaitable[bytes]]
"""A message that may have come compressed -> as it was before."""
_READ: tuple[Need, ...] = ("the model", "admin")
"""Whose messages say what is asked for."""


class KeyedRpcs(Restrictions):
    """`Restrictions` with keys before them. Every call has a task and with it a context of its
    own, so that nobody else sees whose it is."""

    def __init__(self, callers: Callers, restrictions: Restrictions, expand: Expand) -> None:
        self._callers = callers
        self._restrictions = restrictions
        self._expand = expand

    def unary(self, name: str, work: Unary) -> Unary:
        work = self._restrictions.unary(name, work)
        need = need_of_rpc(name)
        if need == "nothing":
            return work

        async def checked(data: bytes, context: Any) -> bytes:
            caller = self._caller(context)
            model = ""
            if need in _READ:
                data = await self._expand(data)
            if need == "the model":
                model, _ = v2_grpc.decode_model_name(name, data)
            self._check(need, caller, model, charge=True)
            if need == "admin":
                write_down(caller, " ".join((name, v2_grpc.decode_subject(name, data))).strip())
            ASKING.set(Asking(caller=caller))
            return await work(data, context)

        return checked

    def streaming(self, name: str, work: Streaming) -> Streaming:
        work = self._restrictions.streaming(name, work)
        need = need_of_rpc(name)
        if need == "nothing":
            return work
        is_inference = need == "inference"

        async def checked(asked: Any, context: Any) -> AsyncIterator[bytes]:
            caller = self._caller(context)
            self._check(need, caller, charge=not is_inference)
            ASKING.set(Asking(caller=caller, pays_each=is_inference))
            async for part in work(asked, context):
                yield part

        return checked

    def _caller(self, context: Any) -> Caller:
        """Raises: Unauthorized."""
        sent = dict(context.invocation_metadata() or ()).get(AUTHORIZATION, "")
        if isinstance(sent, bytes):
            sent = sent.decode("utf-8", "surrogateescape")
        try:
            return self._callers.caller(sent)
        except Unauthorized as error:
            self._callers.deny(error, None)
            raise

    def _check(self, need: Need, caller: Caller, model: str = "", *, charge: bool) -> None:
        """Raises: Forbidden, RateLimited."""
        try:
            check_need(need, caller, model)
            if charge:
                self._callers.charge_request(caller)
        except (Forbidden, RateLimited) as error:
            self._callers.deny(error, caller)
            raise
