"""The admin API: what runs, how the traffic splits, what was decided and why. On loopback only."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import orjson

from actors.experiments.client import ControllerAway, ControllerClient
from actors.front_door import FrontDoor
from actors.listeners.guard import guarded
from actors.listeners.http_messages import HttpReply, HttpRequest, json_reply
from actors.listeners.routes.extensions import json_object
from actors.listeners.routes.table import Handler, Place, Route
from actors.measures.cluster import look
from actors.repository.names import app_prefix
from cluster.config.ensemble import name_of
from cluster.control.cluster_map import cluster_map
from cluster.errors import InvalidRequest, ModelNotFound
from cluster.experiments.report import Feedback
from cluster.routing.table import EnsembleRoute, ExperimentRoute, VariantRoute

MAX_FEEDBACK = 10_000
"""Values in one request."""


class AdminRoutes:
    """Bound to one front door."""

    def __init__(self, door: FrontDoor, controller: ControllerClient, *, app: str) -> None:
        self._door = door
        self._controller = controller
        self._app = app
        self._kept: dict[tuple[str, ...], tuple[float, Any]] = {}

    def routes(self) -> list[Route]:
        admin = "/admin/v1"
        one = f"{admin}/experiments/{{name}}"
        return [
            _get(f"{admin}/models", self._models, "Every model and what it is", "Models"),
            _get(f"{admin}/variants", self._variants, "Every variant and its state", "Variants"),
            _get(f"{admin}/ensembles", self._ensembles, "Every ensemble", "Ensembles"),
            _get(f"{admin}/traffic", self._traffic, "How the traffic splits", "Traffic"),
            _get(f"{admin}/experiments", self._experiments, "Every experiment", "Experiments"),
            _get(one, self._experiment, "One experiment, judged", "Experiment"),
            _change("PUT", f"{one}/weights", self._set_weights, "Set the weights", "Weights"),
            _change("DELETE", f"{one}/weights", self._reset, "Back to the configuration", ""),
            _change("POST", f"{one}/feedback", self._feedback, "Rate earlier answers", "Feedback"),
            _get(f"{admin}/autoscaling", self._autoscaling, "Scaling decisions", "Decisions"),
            _get(f"{admin}/cluster", self._cluster, "Nodes and their processes", "Cluster"),
            _get(f"{admin}/events", self._events, "What happened, newest last", "Events"),
        ]

    async def _models(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply([self._described(name) for name in sorted(self._door.table.routes)])

    async def _variants(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply(self._of_kind("variant"))

    async def _ensembles(self, request: HttpRequest, place: Place) -> HttpReply:
        return json_reply(self._of_kind("ensemble"))

    async def _traffic(self, request: HttpRequest, place: Place) -> HttpReply:
        table = self._door.table
        return json_reply(
            {
                "table_version": table.version,
                "experiments": {
                    name: route.weights
                    for name, route in table.routes.items()
                    if isinstance(route, ExperimentRoute)
                },
            }
        )

    async def _experiments(self, request: HttpRequest, place: Place) -> HttpReply:
        return await self._told("experiments")

    async def _experiment(self, request: HttpRequest, place: Place) -> HttpReply:
        self._check(place.name)
        return await self._told("experiment", place.name)

    async def _set_weights(self, request: HttpRequest, place: Place) -> HttpReply:
        self._check(place.name)
        weights = json_object(request.body)
        return json_reply(await self._controller.ask("set_weights", place.name, weights))

    async def _reset(self, request: HttpRequest, place: Place) -> HttpReply:
        self._check(place.name)
        return json_reply(await self._controller.ask("reset_traffic", place.name))

    async def _feedback(self, request: HttpRequest, place: Place) -> HttpReply:
        self._check(place.name)
        feedback = decode_feedback(request.body)
        found = await self._controller.rate(place.name, feedback)
        counted = found or 0
        reply = json_reply(
            {
                "accepted": len(feedback),
                "counted": counted,
                "handed_on": 0 if found is None else len(feedback) - counted,
                "queued": len(feedback) if found is None else 0,
            }
        )
        if found is None:
            reply.status = 202
        return reply

    async def _autoscaling(self, request: HttpRequest, place: Place) -> HttpReply:
        return await self._told("autoscaling")

    async def _cluster(self, request: HttpRequest, place: Place) -> HttpReply:
        seen = await asyncio.to_thread(look, self._app, app_prefix(self._app))
        return json_reply(cluster_map(self._door.table, *seen))

    async def _events(self, request: HttpRequest, place: Place) -> HttpReply:
        return await self._told("events")

    async def _told(self, *question: str) -> HttpReply:
        """The controller's answer. While it is away, the last one that this door had, with its
        `Age` (seconds) and the weights that this door decides by.

        Raises: what `ControllerClient.ask` raises.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await self._controller.ask(*question)
        except ControllerAway:
            if question not in self._kept:
                raise
            at_s, found = self._kept[question]
            for each in found if isinstance(found, list) else [found]:
                self._bring_up_to_date(each)
            reply = json_reply(found)
            reply.headers = (*reply.headers, ("Age", str(round(loop.time() - at_s))))
            return reply
        self._kept[question] = (loop.time(), found)
        return json_reply(found)

    def _bring_up_to_date(self, view: dict[str, Any]) -> None:
        route = self._door.table.routes.get(str(view.get("name")))
        if isinstance(route, ExperimentRoute):
            for arm in view["arms"]:
                arm["weight"] = route.weights.get(arm["name"], arm["weight"])

    def _check(self, experiment: str) -> None:
        """Raises: ModelNotFound. A name that nobody configured costs the controller nothing."""
        if not isinstance(self._door.table.routes.get(experiment), ExperimentRoute):
            names = [
                n for n, r in self._door.table.routes.items() if isinstance(r, ExperimentRoute)
            ]
            raise ModelNotFound(
                f"there is no experiment '{experiment[:80]}'; allowed: {', '.join(names) or 'none'}"
            )

    def _of_kind(self, kind: str) -> list[dict[str, object]]:
        described = (self._described(name) for name in sorted(self._door.table.routes))
        return [each for each in described if each["kind"] == kind]

    def _described(self, name: str) -> dict[str, object]:
        table = self._door.table
        state, reason = table.state_of(name)
        found: dict[str, object] = {"name": name, "state": state, "reason": reason}
        match table.routes[name]:
            case VariantRoute() as route:
                return {
                    **found,
                    "kind": "variant",
                    "version": route.facts.version,
                    "backend": route.facts.backend,
                    "replicas": route.num_replicas,
                    "is_colocated": route.facts.is_colocated,
                    "placement": route.facts.placement,
                }
            case ExperimentRoute() as route:
                return {**found, "kind": "experiment", "weights": route.weights}
            case EnsembleRoute() as route:
                return {
                    **found,
                    "kind": "ensemble",
                    "models": list(route.plan.models),
                    "inputs": [spec.name for spec in route.plan.signature.inputs],
                    "outputs": [spec.name for spec in route.plan.signature.outputs],
                    "steps": [
                        {
                            "name": name_of(planned.step),
                            "needs": sorted(planned.needs),
                            "gives": sorted(planned.gives),
                        }
                        for planned in route.plan.steps
                    ],
                }


def decode_feedback(body: bytes) -> list[Feedback]:
    """One `{"request_id", "value"}`, or a list of them. Raises: InvalidRequest."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"failed to parse the request JSON: {error}") from None
    items = content if isinstance(content, list) else [content]
    if len(items) > MAX_FEEDBACK:
        raise InvalidRequest(f"{len(items)} values in one request; at most {MAX_FEEDBACK}")
    return [_one(item) for item in items]


def _one(item: Any) -> Feedback:
    if not isinstance(item, dict) or item.keys() != {"request_id", "value"}:
        raise InvalidRequest('feedback is {"request_id": text, "value": number}, or a list of that')
    request_id, value = item["request_id"], item["value"]
    if not isinstance(request_id, str) or not 0 < len(request_id) <= 128:
        raise InvalidRequest("'request_id' must be a text of 1 to 128 characters")
    if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e9:
        raise InvalidRequest("'value' must be a number from -1e9 to 1e9, true or false")
    return Feedback(request_id=request_id, value=float(value))


def _get(path: str, answer: Handler, summary: str, gives: str) -> Route:
    answer = guarded(answer, changes=False)
    return Route(method="GET", path=path, answer=answer, summary=summary, gives=gives)


def _change(method: str, path: str, answer: Handler, summary: str, takes: str) -> Route:
    gives = "Experiment" if takes != "Feedback" else "Accepted"
    return Route(
        method=method,
        path=path,
        answer=guarded(answer),
        summary=summary,
        takes=takes,
        gives=gives,
    )
