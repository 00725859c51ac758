"""One request through an ensemble: every step as soon as what it needs is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from cluster.config.ensemble import CombineStep, ModelStep, TopKStep
from cluster.protocols.v2_check import check_request
from cluster.requests import InferenceRequest, RequestedOutput
from cluster.routing.combine import mean, top_k
from cluster.routing.ensemble import PlannedStep, input_map
from cluster.routing.table import EnsembleRoute, RoutingTable
from cluster.tensors import Tensor, tensor

AskMember = Callable[[InferenceRequest], Awaitable[tuple[Tensor, ...]]]

MAX_ROWS = 65536
"""Of a request to an ensemble; its members have their own maximum."""


class EnsembleRun:
    """`table` is the one the request began with: its members do not change under it."""

    def __init__(
        self, route: EnsembleRoute, table: RoutingTable, request: InferenceRequest
    ) -> None:
        self._route = route
        self._table = table
        self._request = request

    async def outputs(self, ask: AskMember) -> tuple[Tensor, ...]:
        """What the request wants. When a member fails, those under way are cancelled.

        Raises: InvalidRequest for a request that does not fit; what `ask` raises.
        """
        route, request = self._route, self._request
        check_request(request, route.signature, max_batch_size=MAX_ROWS, is_batched=True)
        values: dict[str, Tensor] = {tensor.name: tensor for tensor in request.inputs}
        started: set[int] = set()
        running: set[asyncio.Task[dict[str, Tensor]]] = set()
        loop = asyncio.get_running_loop()
        try:
            while True:
                for index in route.plan.runnable(frozenset(values), frozenset(started)):
                    started.add(index)
                    work = self._run_step(route.plan.steps[index], dict(values), ask)
                    running.add(loop.create_task(work))
                if not running:
                    break
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    values |= task.result()
        finally:
            for task in running:
                task.cancel()
        names = tuple(output.name for output in request.outputs) or tuple(
            spec.name for spec in route.signature.outputs
        )
        return tuple(values[name] for name in names)

    async def _run_step(
        self, planned: PlannedStep, values: Mapping[str, Tensor], ask: AskMember
    ) -> dict[str, Tensor]:
        match planned.step:
            case ModelStep() as step:
                found = await ask(self._asked(step, values))
                return {
                    step.outputs[output.name]: Tensor(
                        name=step.outputs[output.name],
                        datatype=output.datatype,
                        array=output.array,
                    )
                    for output in found
                }
            case CombineStep() as step:
                combined = mean([values[name].array for name in step.inputs], step.weights)
                return {step.output: tensor(step.output, combined)}
            case TopKStep() as step:
                names = self._route.plan.labels[step.labels_of]
                labels, scores = top_k(values[step.input].array, names, step.top_k)
                return {
                    step.labels: tensor(step.labels, labels),
                    step.scores: tensor(step.scores, scores),
                }

    def _asked(self, step: ModelStep, values: Mapping[str, Tensor]) -> InferenceRequest:
        """The request to a member: its caller, priority and tenant are the ensemble's."""
        member = self._table.known(step.model)
        inputs = tuple(
            Tensor(name=name, datatype=values[value].datatype, array=values[value].array)
            for name, value in input_map(step, member.signature).items()
        )
        request = self._request
        return InferenceRequest(
            model=step.model,
            request_id=request.request_id,
            inputs=inputs,
            outputs=tuple(RequestedOutput(name=name) for name in step.outputs),
            priority=request.priority,
            tenant=request.tenant,
            affinity_key=request.affinity_key,
            parameters=request.parameters,
            trace_parent=request.trace_parent,
        )
