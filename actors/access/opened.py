"""Which door and which routes: chosen once, so that a door without keys does nothing for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from actors.access.callers import Callers
from actors.access.door import KeyedFrontDoor
from actors.access.http import KeyedHttpRoutes
from actors.front_door import FrontDoor
from actors.listeners.http_routes import HttpRoutes


def opened_by(
    callers: Callers | None,
) -> tuple[Callable[..., FrontDoor], Callable[..., HttpRoutes]]:
    """What makes a door, and what makes its HTTP routes."""
    if callers is None:
        return FrontDoor, HttpRoutes
    return partial(KeyedFrontDoor, callers=callers), KeyedHttpRoutes
