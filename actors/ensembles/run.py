"""One request through an ensemble: every step as soon as what it needs is there."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from actors.ensembles.member import (
    AskMember,
    Member,
    MemberRules,
    is_the_callers,
    member_request,
)
from cluster.config.ensemble import CallStep, TopKStep
from cluster.config.ensembles.calls import ModelStep, SplitStep, SwitchStep
from cluster.config.ensembles.combining import CombineStep
from cluster.errors import NoReadyReplica, SquadronError
from cluster.protocols.v2_check import check_request
from cluster.requests import InferenceRequest
from cluster.routing.ensembles.choose import (
    Share,
    split_by_weight,
    switch_by_parameter,
    switch_by_value,
)
from cluster.routing.ensembles.combine import combine, top_k
from cluster.routing.ensembles.progress import GraphProgress
from cluster.routing.table import EnsembleRoute, RoutingTable
from cluster.tensors import NUMPY_DTYPES, Array, Tensor, tensor

Values = dict[str, Tensor]

LAST_SHARE = 0.1
"""Of a request's time: what is kept for combining, once a quorum is there and some do not come."""

MAX_ROWS = 65536
"""Of a request to an ensemble; its members have their own maximum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """What a door brings: `ask` answers for a member by a deadline, `draw` is uniform in [0, 1)."""

    ask: AskMember
    draw: Callable[[], float]
    rules: MemberRules


class EnsembleRun:
    """`table` is the one the request began with: its members do not change under it."""

    def __init__(
        self,
        route: EnsembleRoute,
        table: RoutingTable,
        request: InferenceRequest,
        setup: RunSetup,
        *,
        deadline_s: float,
    ) -> None:
        self._route = route
        self._table = table
        self._request = request
        self._setup = setup
        self._deadline_s = deadline_s
        self._values: Values = {}

    async def outputs(self) -> tuple[Tensor, ...]:
        """What the request wants. Members that nobody waits for any more are cancelled.

        Raises: InvalidRequest for a request that does not fit; the error of a member that the graph
        cannot do without.
        """
        signature = self._route.signature
        names = [output.name for output in self._request.outputs] or [
            spec.name for spec in signature.outputs
        ]
        await self.compute(names)
        return tuple(self._values[name] for name in names)

    @property
    def stream_names(self) -> Mapping[str, str]:
        """The outputs of the model that streams -> the ensemble's."""
        plan = self._route.plan
        assert plan.stream is not None
        step = plan.steps[plan.stream].step
        assert isinstance(step, ModelStep)
        return step.outputs

    async def stream_request(self) -> InferenceRequest:
        """What the last step's model is asked, once all steps before it have run. Of a plan that
        streams. Raises: see `outputs`."""
        plan = self._route.plan
        assert plan.stream is not None
        planned = plan.steps[plan.stream]
        assert isinstance(planned.step, ModelStep)
        values = await self.compute(planned.needs)
        return self._member(plan.stream, planned.step, planned.step.model).asked(
            self._request, values
        )

    async def compute(self, wanted: Collection[str]) -> Values:
        """The graph's values, those of `wanted` among them. Raises: see `outputs`."""
        route, request = self._route, self._request
        check_request(request, route.signature, max_batch_size=self._max_rows(), is_batched=True)
        self._values = {tensor.name: tensor for tensor in request.inputs}
        loop = asyncio.get_running_loop()
        hurry_s = self._deadline_s - LAST_SHARE * (self._deadline_s - loop.time())
        progress = GraphProgress(route.plan, inputs=self._values, wanted=wanted, hurry_s=hurry_s)
        running: dict[asyncio.Task[Values], int] = {}
        try:
            while not progress.is_done:
                if progress.error is not None:
                    raise progress.error
                for index in progress.start(loop.time()):
                    step = self._run_step(index, self._values)
                    running[loop.create_task(step)] = index
                for task in await _some(running, progress.due_s()):
                    self._settle(progress, running.pop(task), task)
        finally:
            for task in running:
                task.cancel()
                # A second failure is nobody's answer; asyncio would report it as forgotten.
                task.add_done_callback(_look_away)
        if progress.missing:
            self._setup.rules.count(route.name, "answered without a member")
        return self._values

    def _max_rows(self) -> int:
        """As the ensemble's own description has it: a caller is told of the model it asked."""
        members = self._table.variants_of(self._route.name)
        return min(
            (each.batching.max_batch_size for each in members if each.facts.is_batched),
            default=MAX_ROWS,
        )

    def _settle(self, progress: GraphProgress, index: int, task: asyncio.Task[Values]) -> None:
        try:
            self._values |= task.result()
        except SquadronError as error:
            if is_the_callers(error):
                raise
            self._setup.rules.count(self._route.name, "member failed")
            progress.failed(index, error)
        else:
            progress.finished(index)

    async def _run_step(self, index: int, values: Values) -> Values:
        match self._route.plan.steps[index].step:
            case CombineStep() as step if step.is_by_model:
                return {step.output: await self._combined_by_model(step, values)}
            case CombineStep() as step:
                arrays = {name: values[name].array for name in step.inputs if name in values}
                return {step.output: tensor(step.output, combine(step, arrays))}
            case TopKStep() as step:
                names = self._route.plan.labels[step.labels_of]
                labels, scores = top_k(values[step.input].array, names, step.top_k)
                return {
                    step.labels: tensor(step.labels, labels),
                    step.scores: tensor(step.scores, scores),
                }
            case step:
                needs = self._route.plan.steps[index].needs
                return await self._call(index, step, {name: values[name] for name in needs})

    async def _call(self, index: int, step: CallStep, values: Values) -> Values:
        shares = self._shares(index, step, values)
        if len(shares) == 1 and shares[0].rows is None:
            return await self._ask(index, step, shares[0].model, values)
        asking = [
            asyncio.ensure_future(self._ask(index, step, share.model, _rows_of(values, share.rows)))
            for share in shares
        ]
        try:
            return _gathered(shares, await asyncio.gather(*asking))
        finally:
            for each in asking:  # one has failed: nobody waits for the others
                each.cancel()

    def _shares(self, index: int, step: CallStep, values: Values) -> tuple[Share, ...]:
        match step:
            case ModelStep():
                return (Share(model=step.model),)
            case SplitStep():
                name = f"{self._route.name}.{index}"
                key = self._request.affinity_key
                return (split_by_weight(step, name=name, key=key, draw=self._setup.draw()),)
            case SwitchStep() if step.switch.value:
                return switch_by_value(step, values[step.switch.value])
            case SwitchStep():
                return (switch_by_parameter(step, self._request.parameters),)

    async def _ask(self, index: int, step: CallStep, model: str, values: Values) -> Values:
        member = self._member(index, step, model)
        found = await member.ask(self._setup.ask, self._request, values, self._deadline_s)
        return renamed(found, step.outputs)

    def _member(self, index: int, step: CallStep, model: str) -> Member:
        return Member(
            step=step,
            model=model,
            place=(self._route.name, index),
            table=self._table,
            rules=self._setup.rules,
        )

    async def _combined_by_model(self, step: CombineStep, values: Values) -> Tensor:
        signature = self._table.known(step.model).signature
        rows = next(values[name].shape[0] for name in step.inputs if name in values)
        inputs: list[Tensor] = []
        for spec, name in zip(signature.inputs, step.inputs, strict=True):
            found = values.get(name)
            if found is None:
                given = self._route.plan.values[name]
                shape = (rows, *given.shape[1:])
                nothing = np.full(shape, math.nan, dtype=NUMPY_DTYPES[given.datatype])
                found = Tensor(name=name, datatype=given.datatype, array=nothing)
            inputs.append(Tensor(name=spec.name, datatype=spec.datatype, array=found.array))
        request = member_request(self._request, step.model, inputs, [signature.outputs[0].name])
        (answer,) = await self._setup.ask(request, self._deadline_s)
        return Tensor(name=step.output, datatype=answer.datatype, array=answer.array)


def renamed(outputs: Iterable[Tensor], names: Mapping[str, str]) -> Values:
    """A member's outputs under their names in the graph."""
    return {
        names[output.name]: Tensor(
            name=names[output.name], datatype=output.datatype, array=output.array
        )
        for output in outputs
    }


def _look_away(task: asyncio.Task[Values]) -> None:
    if not task.cancelled():
        task.exception()


async def _some(
    running: dict[asyncio.Task[Values], int], until_s: float | None
) -> Iterable[asyncio.Task[Values]]:
    """Those that end first; none when a quorum has waited long enough before."""
    if not running:
        # Every step that could run has, and what is wanted is neither there nor given up.
        raise NoReadyReplica("the ensemble's graph is stuck", retry_after_s=1)
    timeout_s = None
    if until_s is not None and until_s < math.inf:
        timeout_s = max(0.0, until_s - asyncio.get_running_loop().time())
    done, _ = await asyncio.wait(running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    return done


def _rows_of(values: Values, rows: Array | None) -> Values:
    return {
        name: Tensor(name=name, datatype=value.datatype, array=value.array[rows])
        for name, value in values.items()
    }


def _gathered(shares: tuple[Share, ...], parts: list[Values]) -> Values:
    """Every row where it was before it was shared out."""
    places = np.concatenate([share.rows for share in shares if share.rows is not None])
    order = np.argsort(places)
    return {
        name: Tensor(
            name=name,
            datatype=first.datatype,
            array=np.concatenate([part[name].array for part in parts])[order],
        )
        for name, first in parts[0].items()
    }
