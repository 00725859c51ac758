"""What the models of this node did, for both transports."""

from __future__ import annotations

import asyncio
from pathlib import Path

from actors.front_door import FrontDoor
from cluster.experiments.report import Cost
from cluster.observability.metrics import node_samples
from cluster.observability.statistics import model_statistics
from cluster.protocols.extensions.statistics import ModelStatistics
from cluster.routing.table import VariantRoute


class NodeStatistics:
    """Reads the metrics that every process of the node writes into one folder."""

    def __init__(self, door: FrontDoor, metrics_folder: Path) -> None:
        self._door = door
        self._folder = metrics_folder

    async def of(self, model: str = "", version: str = "") -> list[ModelStatistics]:
        """An entry for each version of `model`, or of every model without a name.

        Raises: ModelNotFound.
        """
        table = self._door.table
        if model:
            route = self._door.route(model, version)
            if isinstance(route, VariantRoute) and route.model != model:
                model, version = route.model, route.facts.version
        names = [model] if model else sorted(table.routes)
        wanted = [
            (name, each)
            for name in names
            for each, served_as in table.versions_of(name).items()
            if served_as in table.routes and version in ("", each)
        ]
        self._door.write_counts()
        node = await asyncio.to_thread(node_samples, self._folder)
        return [model_statistics(node, *each) for each in wanted]

    async def costs(self) -> dict[str, Cost]:
        """What each variant's engines took on this node, by the time of their batches."""
        found = await self.of()
        table = self._door.table
        return {
            table.versions_of(each.name)[each.version]: Cost(
                rows=each.inference_count,
                engine_s=sum(batch.compute_infer.ns for batch in each.batches) / 1e9,
            )
            for each in found
            if isinstance(table.routes[each.name], VariantRoute)
        }
