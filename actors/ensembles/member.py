"""A step's call of a model, by its rules: time-out, a second asking, a model that stands in."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from cluster.config.ensemble import CallStep
from cluster.errors import ModelNotFound, RequestError, SquadronError
from cluster.requests import InferenceRequest, RequestedOutput
from cluster.routing.ensembles.fit import input_map
from cluster.routing.ensembles.hedging import HedgeBudget
from cluster.routing.table import RoutingTable
from cluster.tensors import Tensor

AskMember = Callable[[InferenceRequest, float], Awaitable[tuple[Tensor, ...]]]
"""A request to a member and the loop's time by which it has to be answered."""

Count = Callable[[str, str], None]
"""Of an ensemble, something that happened."""


class MemberRules:
    """What the members of one door share: how often each step may ask twice."""

    def __init__(self, count: Count) -> None:
        self.count = count
        self.budgets: defaultdict[tuple[str, int], HedgeBudget] = defaultdict(HedgeBudget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """`place`: the ensemble and its step."""

    step: CallStep
    model: str
    place: tuple[str, int]
    table: RoutingTable
    rules: MemberRules

    async def ask(
        self,
        ask: AskMember,
        request: InferenceRequest,
        values: dict[str, Tensor],
        deadline_s: float,
    ) -> tuple[Tensor, ...]:
        """The member's outputs, or its fallback's. Raises: what `ask` raises."""
        step, loop = self.step, asyncio.get_running_loop()
        until_s = deadline_s
        if step.timeout_ms is not None:
            until_s = min(deadline_s, loop.time() + step.timeout_ms / 1e3)
        asked = self.asked(request, values)
        try:
            if step.hedge_after_ms is None:
                return await ask(asked, until_s)
            return await self._hedged(ask, asked, until_s, step.hedge_after_ms / 1e3)
        except SquadronError as error:
            if not step.fallback or is_the_callers(error) or loop.time() >= deadline_s:
                raise
            self.rules.count(self.place[0], "fallback asked")
            return await ask(self.asked(request, values, step.fallback), deadline_s)

    async def _hedged(
        self, ask: AskMember, asked: InferenceRequest, until_s: float, after_s: float
    ) -> tuple[Tensor, ...]:
        """The first answer of at most two. The second goes to the replica that is least busy then.

        Source: Dean and Barroso 2013, "The tail at scale": hedged requests.
        """
        loop = asyncio.get_running_loop()
        budget = self.rules.budgets[self.place]
        budget.earn()
        first = loop.create_task(_ask(ask, asked, until_s))
        running = {first}
        try:
            await asyncio.wait(running, timeout=after_s)
            if not first.done() and budget.spend():
                self.rules.count(self.place[0], "asked twice")
                running.add(loop.create_task(_ask(ask, asked, until_s)))
            while True:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                answered = [task for task in done if task.exception() is None]
                if answered:
                    return answered[0].result()
                if not running:
                    return done.pop().result()
        finally:
            for task in running:
                task.cancel()

    def asked(
        self, request: InferenceRequest, values: dict[str, Tensor], model: str = ""
    ) -> InferenceRequest:
        """The request to `model` (its own if empty), its inputs taken from the graph's values."""
        feeds = input_map(self.step, self.table.known(model or self.model).signature)
        inputs = [
            Tensor(name=name, datatype=values[value].datatype, array=values[value].array)
            for name, value in feeds.items()
        ]
        return member_request(request, model or self.model, inputs, self.step.outputs)


def member_request(
    request: InferenceRequest, model: str, inputs: Iterable[Tensor], outputs: Iterable[str]
) -> InferenceRequest:
    """The request to a member: its caller, priority and tenant are the ensemble's."""
    return InferenceRequest(
        model=model,
        request_id=request.request_id,
        inputs=tuple(inputs),
        outputs=tuple(RequestedOutput(name=name) for name in outputs),
        priority=request.priority,
        tenant=request.tenant,
        affinity_key=request.affinity_key,
        parameters=request.parameters,
        trace=request.trace,
        is_member=True,
    )


def is_the_callers(error: SquadronError) -> bool:
    """What is wrong with the request is wrong for every model, and its sender's to mend; that a
    member has been unloaded is not."""
    return isinstance(error, RequestError) and not isinstance(error, ModelNotFound)


async def _ask(ask: AskMember, asked: InferenceRequest, until_s: float) -> tuple[Tensor, ...]:
    return await ask(asked, until_s)
