"""A front door that runs a model only for callers whose key allows it.

Every way to a model passes here, whatever the route that found its name: a route that forgot to ask
for a key is refused, not open.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from actors.access.callers import ASKING, Callers
from actors.delivery.ticket import Ticket
from actors.front_door import FrontDoor, Outcome
from actors.logs.line import LINE, MAX_TEXT
from cluster.access.keys import NO_KEY, Caller
from cluster.access.needs import check_model
from cluster.access.tokens import COUNT_TOKENS, expected_tokens, split_count
from cluster.errors import Forbidden, RateLimited, SquadronError, Unauthorized
from cluster.requests import InferenceRequest, InferenceResponse


class KeyedFrontDoor(FrontDoor):
    """`FrontDoor` behind API keys."""

    callers: Callers

    def __init__(self, *args: Any, callers: Callers, **named: Any) -> None:
        super().__init__(*args, **named)
        self.callers = callers
        callers.count_into(self._metrics.door.denied)

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Raises: Unauthorized, Forbidden, RateLimited, and as `FrontDoor.infer`."""
        self._admit(request)
        return await super().infer(request)

    def begin(
        self, request: InferenceRequest, rows: int, done: Callable[[Outcome], None]
    ) -> Ticket | None:
        self._admit(request)
        return super().begin(request, rows, done)

    async def stream(self, request: InferenceRequest) -> AsyncGenerator[InferenceResponse, None]:
        caller = self._admit(request)
        settle = None
        if self._is_language(request.model):
            try:
                settle = self.callers.charge_tokens(caller, self._expected(request))
            except RateLimited as error:
                self.callers.deny(error, caller)
                raise
        async with aclosing(super().stream(request)) as responses:
            if settle is None:
                async for response in responses:
                    yield response
                return
            async with aclosing(_counted(request, responses, settle)) as counted:
                async for response in counted:
                    yield response

    def _admit(self, request: InferenceRequest) -> Caller:
        asking = ASKING.get()
        if asking is None:
            raise Unauthorized(NO_KEY)
        caller = asking.caller
        try:
            if asking.pays_each:
                # Its call may be open for days: what a key may do is what the file says now.
                caller = self.callers.again(caller)
            check_model(caller, request.model)
            if asking.pays_each:
                self.callers.charge_request(caller)
        except (Unauthorized, Forbidden, RateLimited) as error:
            self.callers.deny(error, caller)
            if (line := LINE.get()) is not None:
                line.model = request.model[:MAX_TEXT]  # over gRPC no path names it
            raise
        # Whoever it says it is: a key must not take the turns, or read the kept answers, of another
        # owner's. Several keys of one name are one owner's.
        request.tenant = caller.key.name
        return caller

    def _expected(self, request: InferenceRequest) -> float:
        variants = self.table.variants_of(request.model)
        return expected_tokens(request, max(each.facts.max_model_len for each in variants))

    def _is_language(self, model: str) -> bool:
        variants = self.table.variants_of(model)
        return bool(variants) and all(variant.facts.is_language for variant in variants)


async def _counted(
    request: InferenceRequest,
    responses: AsyncGenerator[InferenceResponse, None],
    settle: Callable[[float], None],
) -> AsyncGenerator[InferenceResponse, None]:
    """The responses without the counts that come with them. What was taken from the key is put
    right by the last count, also of a request whose caller leaves."""
    request.parameters[COUNT_TOKENS] = True
    used: float | None = None
    try:
        async for response in responses:
            shown, count = split_count(response)
            used = used if count is None else count
            yield shown
    except SquadronError:
        used = used or 0.0
        raise
    finally:
        if used is not None:
            settle(used)
