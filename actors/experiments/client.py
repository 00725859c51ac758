"""A door's line to the controller: asks it, tells it what was counted, hands feedback on; and waits
for one that is restarting."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayActorError, RayTaskError

from actors.front_door import FrontDoor
from actors.repository.client import RESTARTING_S, GetController
from cluster.errors import CapacityError, DeadlineExceeded, ModelNotFound, Overloaded, SquadronError
from cluster.experiments.report import Feedback, Post, Report

logger = logging.getLogger("squadron.experiments")

PATIENCE_S = 30.0
AWAY_S = 3.0
"""How long a question waits for a controller that is away; one that is known to be is not waited
for at all."""
FEEDBACK_S = 3.0
"""How long feedback waits to be told what came of it: a controller that was killed is back in one
to two seconds. Then it is queued, and while the controller stays away more is queued at once."""
MAX_QUEUED = 100_000
"""Values of feedback that wait at a door for the controller: some 30 MB."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Posted:
    """Feedback on its way. `counted`: what the controller says of it, None for no experiment."""

    post: Post
    counted: asyncio.Future[int | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class ControllerAway(CapacityError):
    """It died, or cannot be found; Ray starts it again where there is room."""


class ControllerClient:
    """Bound to one door, whose name is `door_id`. Without `get_controller` there is nobody to ask.

    What the controller has not confirmed is told again, under the same number.
    """

    def __init__(
        self,
        door: FrontDoor,
        get_controller: GetController | None,
        door_id: str = "",
        *,
        patience_s: float = PATIENCE_S,
        away_s: float = AWAY_S,
        feedback_s: float = FEEDBACK_S,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self._door = door
        self._door_id = door_id
        self._get_controller = get_controller
        self._patience_s = patience_s
        self._away_s = away_s
        self._max_queued = max_queued
        self.feedback_s = feedback_s
        self._number = 0
        self._unconfirmed: Report | None = None
        self._telling = asyncio.Lock()
        self._posted: list[_Posted] = []
        self._num_queued = 0
        self._posting: asyncio.Task[None] | None = None
        self._is_away = False

    async def ask(self, method: str, *arguments: Any) -> Any:
        """What the controller's method returns. Asking twice changes nothing, so a controller that
        dies meanwhile is asked again when it is back.

        Raises: the method's own errors; CapacityError without a controller; ControllerAway;
        DeadlineExceeded of one that is there.
        """
        return await self._ask(method, *arguments, is_patient=False)

    async def _ask(self, method: str, *arguments: Any, is_patient: bool) -> Any:
        """`is_patient`: to wait for one that is away as long as for an answer."""
        if self._is_away and not is_patient:
            await self._look_for_it()
        try:
            async with asyncio.timeout(self._patience_s):
                found = await self._answer(method, arguments, None if is_patient else self._away_s)
        except ControllerAway:
            self._is_away = True
            raise
        # Before Ray's errors: one may be a timeout of the controller's own, which is both.
        except TimeoutError:
            self._is_away = True
            raise DeadlineExceeded(
                f"the controller did not answer within {self._patience_s:g} s; ask again",
                retry_after_s=1,
            ) from None
        except RayTaskError as error:
            self._is_away = False
            if isinstance(error.cause, SquadronError):
                raise error.cause from None
            raise
        self._is_away = False
        return found

    async def _look_for_it(self) -> None:
        """Who did not answer the last time is first asked something that it always knows.

        Raises: ControllerAway, at once where it is dead.
        """
        try:
            async with asyncio.timeout(self._away_s):
                await self._answer("autoscaling", (), 0.0)
        except TimeoutError:
            raise _away() from None
        self._is_away = False

    async def _answer(
        self, method: str, arguments: tuple[Any, ...], give_up_s: float | None
    ) -> Any:
        """`give_up_s`: how long it may be away; 0: one attempt, None: for ever.

        Raises: ControllerAway.
        """
        if self._get_controller is None:
            raise CapacityError("this door has no controller")
        loop = asyncio.get_running_loop()
        gone_s = None if give_up_s is None else loop.time() + give_up_s
        while True:
            try:
                # One attempt is bounded by the caller's patience.
                async with asyncio.timeout_at(gone_s if give_up_s else None):
                    controller = await self._get_controller()
            except TimeoutError:
                raise _away() from None
            asked_s = loop.time()
            try:
                return await getattr(controller, method).remote(*arguments)
            except RayActorError:
                if gone_s is not None:
                    gone_s += loop.time() - asked_s  # until then it was there
                    if loop.time() + RESTARTING_S > gone_s:
                        raise _away() from None
                await asyncio.sleep(RESTARTING_S)

    async def rate(self, experiment: str, feedback: list[Feedback]) -> int | None:
        """How many values were counted, when they are kept; the rest waits for the doors that may
        have answered those requests. None: the controller is away, and the values wait for it here,
        as long as this door lives.

        Raises: ModelNotFound; Overloaded when too many wait; CapacityError without a controller.
        """
        if self._get_controller is None:
            raise CapacityError("this door has no controller")
        if self._num_queued + len(feedback) > self._max_queued:
            raise Overloaded(
                f"{self._num_queued} values of feedback wait here for the controller; send these "
                "again later",
                retry_after_s=5,
            )
        posted = _Posted(post=Post(experiment=experiment, feedback=tuple(feedback)))
        self._posted.append(posted)
        self._num_queued += len(feedback)
        if self._posting is None:
            # A caller that leaves takes nobody else's values with it.
            self._posting = asyncio.get_running_loop().create_task(self._post())
        await asyncio.wait([posted.counted], timeout=0 if self._is_away else self.feedback_s)
        if not posted.counted.done():
            self._is_away = True
            return None
        counted = posted.counted.result()
        if counted is None:
            raise ModelNotFound(f"there is no experiment '{experiment}' any more")
        return counted

    async def tell(self) -> None:
        """The controller has what this door counted, and was given as feedback, until now.

        Raises: what `ask` raises; then the next telling brings it.
        """
        async with self._telling:
            await self._told()

    async def _post(self) -> None:
        # Those that come while an earlier telling is under way go together.
        async with self._telling:
            self._posting = None
            try:
                await self._told()
            except Exception as error:
                # Whoever waits was told; what it has not had goes with the next telling.
                logger.info("feedback was not taken (%s)", type(error).__name__)

    async def _told(self) -> None:
        if self._unconfirmed is None:
            tallies = self._door.experiments.collect()
            if tallies:
                self._number += 1
                self._unconfirmed = Report(door=self._door_id, number=self._number, tallies=tallies)
        posted, self._posted = self._posted, []
        if self._unconfirmed is None and not posted:
            return
        posts = [each.post for each in posted]
        try:
            counted = await self._ask(
                "report", self._door_id, self._unconfirmed, posts, is_patient=True
            )
        except (RayTaskError, SquadronError) as error:
            if isinstance(error, DeadlineExceeded):
                self._posted = [*posted, *self._posted]
            else:
                # It is there and cannot take them: it would not the next time either.
                self._settle(posted, error)
            raise
        except BaseException:
            self._posted = [*posted, *self._posted]
            raise
        self._unconfirmed = None
        self._settle(posted, counted)

    def _settle(self, posted: list[_Posted], said: list[int | None] | Exception) -> None:
        for index, each in enumerate(posted):
            self._num_queued -= len(each.post.feedback)
            if isinstance(said, Exception):
                each.counted.set_exception(said)
                each.counted.exception()  # nobody may be waiting any more
            else:
                each.counted.set_result(said[index])


def _away() -> ControllerAway:
    return ControllerAway(
        "the controller is away: requests go on as they were decided last, and it is started again "
        "by itself; ask again",
        retry_after_s=2,
    )
