"""What the desk of the jobs does with the cluster, so that the desk runs without one in tests."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

import ray
from ray.exceptions import RayActorError, RayError

from actors.jobs.process import JobProcess
from actors.repository.names import NAMESPACE, controller_name
from cluster.control.jobs.job import Reservation, reserve
from cluster.control.jobs.request import JobRequest
from cluster.control.repository import Wanted
from cluster.errors import CapacityError

STOP_S = 15.0


class Hands(Protocol):
    """What the desk does with the cluster. A process has the methods of `JobProcess`, each called
    by `.remote(...)`."""

    def reserve(self, request: JobRequest) -> Reservation:
        """Raises: InvalidRequest for what the cluster has not."""

    def process(self, reserved: Reservation) -> Any: ...

    async def end(self, process: Any) -> None: ...

    async def serving(self, variant: str) -> Wanted | None:
        """Raises: CapacityError while nobody can say it."""

    def has_controller(self) -> bool: ...

    def leave(self) -> None:
        """End the desk's own process."""


class RayHands:
    def __init__(self, app: str) -> None:
        self._app = app

    def reserve(self, request: JobRequest) -> Reservation:
        return reserve(request, ray.available_resources(), ray.cluster_resources())

    def process(self, reserved: Reservation) -> Any:
        return (
            ray.remote(JobProcess)
            .options(
                num_cpus=reserved.num_cpus,
                num_gpus=reserved.num_gpus,
                max_restarts=0,
                max_concurrency=10,
            )
            .remote()
        )

    async def end(self, process: Any) -> None:
        with contextlib.suppress(TimeoutError, RayError):
            async with asyncio.timeout(STOP_S):
                await process.stop.remote()
        ray.kill(process)

    async def serving(self, variant: str) -> Wanted | None:
        try:
            # Finding it imports what it is made of, all of Serve: the desk answers meanwhile.
            controller: Any = await asyncio.to_thread(
                ray.get_actor, controller_name(self._app), NAMESPACE
            )
            found: Wanted | None = await controller.serving.remote(variant)
        except (ValueError, RayActorError):
            raise CapacityError(
                "the controller, which knows how the model is served, is just being started again",
                retry_after_s=2,
            ) from None
        return found

    def has_controller(self) -> bool:
        try:
            ray.get_actor(controller_name(self._app), NAMESPACE)
        except ValueError:
            return False
        return True

    def leave(self) -> None:
        ray.actor.exit_actor()
