"""A door's line to the jobs of its application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ray.exceptions import RayActorError, RayTaskError

from actors.jobs.desk import JobsSetup, ServedVariant
from cluster.errors import CapacityError, DeadlineExceeded, ModelNotFound, SquadronError

PATIENCE_S = 60.0

GetDesk = Callable[[], Any]
"""Blocks; None: there is none, so there never was a job."""


class JobsClient:
    """Bound to one door. Without `setup` there is no cluster to run jobs on."""

    def __init__(
        self,
        setup: JobsSetup | None = None,
        *,
        start: GetDesk = lambda: None,
        find: GetDesk = lambda: None,
    ) -> None:
        self._setup = setup
        self._start = start
        self._find = find

    async def submit(
        self, variant: ServedVariant, content: dict[str, Any], body: bytes, json_length: int | None
    ) -> dict[str, Any]:
        """The new job. Raises: CapacityError without a cluster; what `JobDesk.submit` raises."""
        if self._setup is None:
            raise CapacityError("this door has no cluster to run jobs on")
        arguments = (self._setup, variant, content, body, json_length)
        found: dict[str, Any] = await self._ask(self._start, "submit", *arguments)
        return found

    async def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] | None = await self._ask(self._find, "jobs")
        return found or []

    async def job(self, job_id: str) -> tuple[dict[str, Any], bytes]:
        """With its result. Raises: ModelNotFound."""
        found: tuple[dict[str, Any], bytes] = await self._of(job_id, "job")
        return found

    async def cancel(self, job_id: str) -> dict[str, Any]:
        """Raises: ModelNotFound."""
        found: dict[str, Any] = await self._of(job_id, "cancel")
        return found

    async def add_to_store(self, job_id: str, name: str) -> dict[str, Any]:
        """Raises: ModelNotFound, InvalidRequest."""
        found: dict[str, Any] = await self._of(job_id, "add_to_store", name)
        return found

    async def _of(self, job_id: str, method: str, *more: str) -> Any:
        found = await self._ask(self._find, method, job_id, *more)
        if found is None:
            raise ModelNotFound(f"there is no job '{job_id[:80]}'")
        return found

    async def _ask(self, get: GetDesk, method: str, *arguments: Any) -> Any:
        """None without a desk."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                desk = await asyncio.to_thread(get)
                return None if desk is None else await getattr(desk, method).remote(*arguments)
        # Before Ray's errors: one may be a timeout of the desk's own, which is both.
        except TimeoutError:
            raise DeadlineExceeded(
                f"the jobs' actor did not answer within {PATIENCE_S:g} s, and may still do what "
                "was asked: look at GET /admin/v1/jobs, or ask again with the same `id`",
                retry_after_s=2,
            ) from None
        except RayTaskError as error:
            if isinstance(error.cause, SquadronError):
                raise error.cause from None
            raise
        except RayActorError:
            raise CapacityError(
                "the jobs' actor died, and with it what it ran; it is started again: ask again",
                retry_after_s=2,
            ) from None
