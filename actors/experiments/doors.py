"""Which doors are alive, and which table each of them has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from ray.util import list_named_actors

from cluster.errors import DeadlineExceeded

SERVE_NAMESPACE = "serve"
LOOK_AGAIN_S = 0.1
RETURNING_S = 3.0
"""After its own start the controller knows no door; each comes back within this time."""
PATIENCE_S = 20.0


class Doors:
    """Lives on the controller's loop. A door asks for news as soon as it has taken what came
    before: its question is the acknowledgement."""

    def __init__(self, app: str) -> None:
        self._prefix = f"SERVE_REPLICA::{app}#gateway#"
        self._has: dict[str, int] = {}
        self._changed = asyncio.Condition()
        self._began_s = time.monotonic()

    async def has(self, door: str, version: int) -> None:
        async with self._changed:
            self._has[door] = version
            self._changed.notify_all()

    async def wait_for(self, version: int) -> None:
        """Returns when every live door has this table, or a newer one.

        Raises: DeadlineExceeded naming those that have not, though they live.
        """
        ends_s = time.monotonic() + PATIENCE_S
        while late := self._late(version, await asyncio.to_thread(self._alive)):
            if time.monotonic() >= ends_s:
                names = ", ".join(sorted(late))
                raise DeadlineExceeded(
                    f"kept, but these doors have not taken it within {PATIENCE_S:g} s: {names}"
                )
            async with self._changed:
                try:
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    def _late(self, version: int, alive: Collection[str]) -> set[str]:
        self._has = {door: has for door, has in self._has.items() if door in alive}
        # One that has never asked is still starting, and asks before it listens; unless it is
        # the controller that has just started.
        is_new = time.monotonic() - self._began_s < RETURNING_S
        expected = set(alive) if is_new else set(self._has)
        return {door for door in expected if self._has.get(door, 0) < version}

    def _alive(self) -> set[str]:
        found = list_named_actors(all_namespaces=True)
        return {
            actor["name"]
            for actor in found
            if actor["namespace"] == SERVE_NAMESPACE and actor["name"].startswith(self._prefix)
        }
