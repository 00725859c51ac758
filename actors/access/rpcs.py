"""gRPC calls behind API keys: the key is in the metadata `authorization`, as over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from actors.access.callers import ASKING, Asking, Callers, write_down
from actors.listeners.restrict import Restrictions, Streaming, Unary
from cluster.access.keys import Caller
from cluster.access.needs import check_need, need_of_rpc
from cluster.protocols import v2_grpc

AUTHORIZATION = "authorization"


class KeyedRpcs(Restrictions):
    """`Restrictions` with keys before them. Every call has a task and with it a context of its
    own, so that nobody else sees whose it is."""

    def __init__(self, callers: Callers, restrictions: Restrictions) -> None:
        self._callers = callers
        self._restrictions = restrictions

    def unary(self, name: str, work: Unary) -> Unary:
        work = self._restrictions.unary(name, work)
        need = need_of_rpc(name)
        if need == "nothing":
            return work

        async def checked(data: bytes, context: Any) -> bytes:
            caller = self._caller(context)
            model = ""
            if need == "the model":
                model, _ = v2_grpc.decode_model_name(name, data)
            check_need(need, caller, model)
            self._callers.charge_request(caller)
            if need == "admin":
                write_down(caller, name)
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
            check_need(need, caller)
            if not is_inference:
                self._callers.charge_request(caller)
            ASKING.set(Asking(caller=caller, pays_each=is_inference))
            async for part in work(asked, context):
                yield part

        return checked

    def _caller(self, context: Any) -> Caller:
        """Raises: Unauthorized."""
        sent = dict(context.invocation_metadata() or ()).get(AUTHORIZATION, "")
        if isinstance(sent, bytes):
            sent = sent.decode("utf-8", "surrogateescape")
        return self._callers.caller(sent)
