"""A door's side of loading and unloading: asks the controller, adopts the table that comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ray.exceptions import RayActorError, RayTaskError

from actors.front_door import FrontDoor
from cluster.errors import CapacityError, DeadlineExceeded, SquadronError
from cluster.routing.table import RoutingTable

NOT_ALLOWED = "explicit model load / unload is not allowed if polling is enabled"
"""Triton's text while the repository is not under control."""

RESTARTING_S = 0.2

GetController = Callable[[], Awaitable[Any]]


class Repository:
    """Bound to one door. Without `get_controller` nothing can be loaded."""

    def __init__(self, door: FrontDoor, get_controller: GetController | None) -> None:
        self._door = door
        self._get_controller = get_controller

    async def load(
        self, model: str, config: str, files: Mapping[str, bytes], *, timeout_s: float | None = None
    ) -> None:
        """Returns when the model serves as asked, at this door already.

        Raises: InvalidRequest or SquadronError saying "failed to load"; CapacityError when
        switched off; DeadlineExceeded while it is still loading (it goes on).
        """
        await self._ask(f"failed to load '{model}'", timeout_s, "load", model, config, dict(files))

    async def unload(self, model: str, *, with_dependents: bool) -> None:
        """Raises: ModelNotFound; CapacityError when switched off."""
        await self._ask(f"failed to unload '{model}'", None, "unload", model, with_dependents)

    async def _ask(self, what: str, timeout_s: float | None, method: str, *arguments: Any) -> None:
        if self._door.server.repository_control == "none" or self._get_controller is None:
            raise CapacityError(NOT_ALLOWED)
        limit_s = self._door.server.limits.default_timeout_s
        limit_s = limit_s if timeout_s is None else min(limit_s, timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                table = await self._answer(method, *arguments)
        except TimeoutError:
            raise DeadlineExceeded(f"{what}: not ready within {limit_s:.0f} s; ask again") from None
        except RayTaskError as error:
            if isinstance(error.cause, SquadronError):
                raise error.cause from None
            raise
        if table.version > self._door.table.version:
            self._door.adopt(table)

    async def _answer(self, method: str, *arguments: Any) -> RoutingTable:
        """A controller that dies is asked again when it is back: asking twice changes nothing."""
        assert self._get_controller is not None
        while True:
            controller = await self._get_controller()
            try:
                table: RoutingTable = await getattr(controller, method).remote(*arguments)
            except RayActorError:
                await asyncio.sleep(RESTARTING_S)
            else:
                return table
