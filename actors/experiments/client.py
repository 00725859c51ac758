"""A door's side of the admin API: asks the controller, and waits for one that is restarting."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.exceptions import RayActorError, RayTaskError

from actors.front_door import FrontDoor
from actors.repository.client import RESTARTING_S, GetController
from cluster.errors import CapacityError, DeadlineExceeded, SquadronError
from cluster.experiments.report import Feedback

PATIENCE_S = 30.0


class ControllerClient:
    """Bound to one door. Without `get_controller` there is nobody to ask."""

    def __init__(self, door: FrontDoor, get_controller: GetController | None) -> None:
        self._door = door
        self._get_controller = get_controller

    async def ask(self, method: str, *arguments: Any) -> Any:
        """What the controller's method returns. Asking twice changes nothing, so a controller that
        dies meanwhile is asked again when it is back.

        Raises: the method's own errors; CapacityError without a controller; DeadlineExceeded.
        """
        if self._get_controller is None:
            raise CapacityError("this door has no controller")
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    controller = await self._get_controller()
                    try:
                        return await getattr(controller, method).remote(*arguments)
                    except RayActorError:
                        await asyncio.sleep(RESTARTING_S)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the controller did not answer within {PATIENCE_S:g} s; ask again"
            ) from None
        except RayTaskError as error:
            if isinstance(error.cause, SquadronError):
                raise error.cause from None
            raise

    async def rate(self, experiment: str, feedback: list[Feedback]) -> int:
        """Count what is of this door's requests, hand on the rest, kept so that it outlives the
        controller. How many were counted here. Raises: ModelNotFound."""
        unknown = [each for each in feedback if not self._door.experiments.rate(experiment, each)]
        if unknown:
            await self.ask("feedback", experiment, unknown)
        return len(feedback) - len(unknown)
