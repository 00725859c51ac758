"""A door's line to the controller: asks it, tells it what was counted, hands feedback on; and waits
for one that is restarting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayActorError, RayTaskError

from actors.front_door import FrontDoor
from actors.repository.client import RESTARTING_S, GetController
from cluster.errors import CapacityError, DeadlineExceeded, ModelNotFound, SquadronError
from cluster.experiments.report import Feedback, Post, Report

PATIENCE_S = 30.0


class ControllerClient:
    """Bound to one door, whose name is `door_id`. Without `get_controller` there is nobody to ask.

    What the controller has not confirmed is told again, under the same number.
    """

    def __init__(
        self, door: FrontDoor, get_controller: GetController | None, door_id: str = ""
    ) -> None:
        self._door = door
        self._door_id = door_id
        self._get_controller = get_controller
        self._number = 0
        self._unconfirmed: Report | None = None
        self._telling = asyncio.Lock()
        self._posts: list[Post] = []
        self._posting: asyncio.Task[list[int | None]] | None = None

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
        """Returns when the values are kept: how many of them were counted; the rest waits for the
        doors that may have answered those requests. Raises: ModelNotFound; what `ask` raises."""
        self._posts.append(Post(experiment=experiment, feedback=tuple(feedback)))
        place = len(self._posts) - 1
        if self._posting is None:
            self._posting = asyncio.get_running_loop().create_task(self._post())
        # A caller that leaves takes nobody else's values with it.
        counted = (await asyncio.shield(self._posting))[place]
        if counted is None:
            raise ModelNotFound(f"there is no experiment '{experiment}' any more")
        return counted

    async def tell(self, posts: Sequence[Post] = ()) -> list[int | None]:
        """The controller has what this door counted until now. Raises: what `ask` raises."""
        async with self._telling:
            return await self._told(posts)

    async def _post(self) -> list[int | None]:
        # Those that come while an earlier telling is under way go together.
        async with self._telling:
            posts, self._posts, self._posting = self._posts, [], None
            return await self._told(posts)

    async def _told(self, posts: Sequence[Post]) -> list[int | None]:
        if self._unconfirmed is None:
            tallies = self._door.experiments.collect()
            if tallies:
                self._number += 1
                self._unconfirmed = Report(door=self._door_id, number=self._number, tallies=tallies)
        if self._unconfirmed is None and not posts:
            return []
        counted: list[int | None] = await self.ask(
            "report", self._door_id, self._unconfirmed, posts
        )
        self._unconfirmed = None
        return counted
