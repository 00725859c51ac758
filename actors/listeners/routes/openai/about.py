"""`/v1/models`, `/health`, `/ping`, `/load`, `/version`: what there is, as clients of `openai` and
of vLLM ask."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from actors.descriptions import server_version
from actors.front_door import FrontDoor
from actors.listeners.http_messages import HttpReply, HttpRequest, HttpStream, json_reply
from actors.listeners.routes.openai.shape import described
from actors.listeners.routes.table import Place, Route
from cluster.errors import ModelNotFound, NoReadyReplica
from cluster.protocols.openai.models import model_object
from cluster.routing.table import ExperimentRoute, RoutingTable

EMPTY = "text/plain"
"""Of an answer without a body: to say JSON of it would be wrong."""


class AboutRoutes:
    """Bound to one front door."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door
        self._began_s = int(time.time())

    def routes(self) -> list[Route]:
        get = "GET"
        return [
            described("/v1/models", self._models, "The models that can be called", method=get),
            described("/v1/models/{name}", self._model, "One of them", method=get),
            *(
                replace(
                    described(path, self._health, "200 when ready", method=get),
                    gives="",
                    answers_with=EMPTY,
                )
                for path in ("/health", "/ping")
            ),
            described("/load", self._load, "Requests that this door answers now", method=get),
            described("/version", self._version, "This server's version", method=get),
        ]

    async def _models(self, request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        arms = _arms(self._door.table)
        found = await asyncio.to_thread(self._objects)
        data = [each for name, each in found.items() if name.partition(":")[0] not in arms]
        return json_reply({"object": "list", "data": data})

    async def _model(self, request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        found = (await asyncio.to_thread(self._objects)).get(place.name)
        if found is None:
            raise ModelNotFound(f"The model `{place.name}` does not exist", param="model")
        return json_reply(found)

    async def _health(self, request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        why = self._door.not_ready()
        if why:
            raise NoReadyReplica("; ".join(why), retry_after_s=1)
        return HttpReply(status=200, content_type=EMPTY)

    async def _load(self, request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        # The field's name is vLLM's.
        return json_reply({"server_load": self._door.load_of("").requests_in_flight})

    async def _version(self, request: HttpRequest, place: Place) -> HttpReply | HttpStream:
        return json_reply({"version": server_version(self._door)})

    def _objects(self) -> dict[str, dict[str, object]]:
        """Models that are ready and generate text or embed it, with their adapters."""
        found: dict[str, dict[str, object]] = {}
        table = self._door.table
        for name, route in table.routes.items():
            variants = table.variants_of(name)
            generates = bool(variants) and all(each.facts.is_language for each in variants)
            embeds = route.signature.output("embedding") is not None
            if table.state_of(name)[0] != "READY" or not (generates or embeds):
                continue
            length = variants[0].facts.max_model_len or None
            found[name] = model_object(name, created_s=self._began_s, max_model_len=length)
            facts = variants[0].facts
            for adapter in sorted({*facts.adapters, *_adapters_in(facts.adapter_folder)}):
                full = f"{name}:{adapter}"
                found[full] = model_object(
                    full, created_s=self._began_s, parent=name, max_model_len=length
                )
        return found


def _arms(table: RoutingTable) -> set[str]:
    """Variants that share a name's traffic: a list of models has the name, who answers is told in
    a header. They can be called all the same."""
    routes = table.routes.values()
    return {
        arm.variant for route in routes if isinstance(route, ExperimentRoute) for arm in route.arms
    }


def _adapters_in(folder: str) -> list[str]:
    """Those that are loaded when somebody first asks for them."""
    if not folder:
        return []
    try:
        return [each.parent.name for each in Path(folder).glob("*/adapter_config.json")]
    except OSError:
        return []
