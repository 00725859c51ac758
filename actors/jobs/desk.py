"""The actor that has an application's jobs: one for all doors, started by the first that is asked.

It lives as long as the application's controller. What it knows is lost with it: a job that runs
ends then too, as its process ends with its actor, and that one with this.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from actors.jobs.hands import Hands, RayHands
from actors.jobs.kept import NOT_KEPT, add_kept, kept_folder, remove_kept, remove_old
from actors.jobs.process import Event
from actors.jobs.sources import candidates, check_writable, of_version
from actors.jobs.work import Work
from actors.repository.names import NAMESPACE, desk_name
from actors.variant_facts import Origin, origin_of
from cluster.config.squadron import SquadronConfig
from cluster.config.store import ModelStore
from cluster.config.variant import VariantConfig
from cluster.control.jobs.job import (
    LIMITS,
    Job,
    admit,
    next_to_start,
    to_forget,
    with_artefact,
)
from cluster.control.jobs.request import (
    OptimizeRequest,
    check_can,
    job_request,
)
from cluster.errors import (
    ConfigError,
    EngineFailed,
    InvalidRequest,
    ModelNotFound,
    SquadronError,
)

logger = logging.getLogger("squadron.jobs")

LOOK_S = 5.0
ORPHANED_LOOKS = 3
"""So many looks after the controller went, the desk goes too: it may only be restarting."""
CANCELLED = "cancelled on request"
UNFORESEEN = "the server did not expect what happened; its log says what"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsSetup:
    """What a door's configuration says."""

    config: SquadronConfig
    store: ModelStore
    is_controlled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedVariant:
    """What a door answers with: the store may hold a newer version by now."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    work: Work
    body: bytes
    origin: Origin


class JobDesk:
    """One an application. `hands`: what it does with the cluster; Ray's if None."""

    def __init__(self, app: str, hands: Hands | None = None, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self._hands: Hands = hands or RayHands(app)
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._follows: dict[str, asyncio.Task[None]] = {}
        self._works: dict[str, asyncio.Task[Event]] = {}
        self._stores: dict[str, ModelStore] = {}
        self._adding, self._submitting = asyncio.Lock(), asyncio.Lock()
        self.watching = asyncio.get_running_loop().create_task(self._watch_controller())

    async def submit(
        self,
        setup: JobsSetup,
        variant: ServedVariant,
        content: dict[str, Any],
        body: bytes,
        json_length: int | None,
    ) -> dict[str, object]:
        """The new job. `body`: of the request, with its tensors; `content`: what it says without
        them. Raises: InvalidRequest, Unsupported, Overloaded."""
        async with self._submitting:
            return await self._submit(setup, variant, content, body, json_length)

    async def _submit(
        self,
        setup: JobsSetup,
        variant: ServedVariant,
        content: dict[str, Any],
        body: bytes,
        json_length: int | None,
    ) -> dict[str, object]:
        request = job_request(content)
        if request.id in self._jobs:
            return self._jobs[request.id].as_dict()  # it was asked for, and the answer lost
        admit(list(self._jobs.values()), len(body))
        wanted, store = await self._wanted(setup, variant)
        origin = await asyncio.to_thread(origin_of, variant.name, wanted, store)
        if isinstance(origin, ConfigError):
            raise InvalidRequest(origin.message)
        check_can(request, model_format=origin.card.format, engine=origin.engine)
        if isinstance(request, OptimizeRequest):
            self._check_search(request, wanted, setup.store)
        reserved = await asyncio.to_thread(self._hands.reserve, request)
        job_id = request.id or secrets.token_hex(8)
        kept = kept_folder(setup.store.root, job_id)
        work = Work(
            request=content,
            card=origin.card.model_dump_json(),
            folder=str(origin.folder),
            engine=origin.engine,
            options=dict(wanted.options),
            threads=wanted.threads,
            is_processed=wanted.processed,
            store=str(setup.store.root),
            kept=str(kept),
            nice=reserved.nice,
            json_length=json_length,
            candidates=await asyncio.to_thread(candidates, request, setup.store),
        )
        await asyncio.to_thread(remove_old, setup.store.root, set(self._jobs), time.time())
        self._jobs[job_id] = Job(
            id=job_id, request=request, num_input_bytes=len(body), created_s=time.time()
        )
        self._waiting[job_id] = _Waiting(work=work, body=body, origin=origin)
        self._stores[job_id] = setup.store
        self._go_on()
        return self._jobs[job_id].as_dict()

    async def jobs(self) -> list[dict[str, object]]:
        """Oldest first."""
        return [each.as_dict() for each in self._jobs.values()]

    async def job(self, job_id: str) -> tuple[dict[str, object], bytes]:
        """With its result, as JSON. Raises: ModelNotFound."""
        job = self._known(job_id)
        return job.as_dict(), job.result

    async def cancel(self, job_id: str) -> dict[str, object]:
        """The job, when nothing of it runs any more. One that had ended stays what it was."""
        job = self._known(job_id)
        follow = self._follows.get(job_id)
        if follow is None:
            self._jobs[job_id] = job.cancelled(time.time(), CANCELLED)
        else:
            # Only its work, which is over once there is an outcome: what comes after that (the end
            # of its process, a new version in the store) is never left half-done, however often
            # this is asked for.
            self._jobs[job_id] = job.running("is being ended")
            self._works[job_id].cancel()
            await asyncio.wait([follow])
        self._go_on()
        return self._known(job_id).as_dict()

    async def add_to_store(self, job_id: str, name: str) -> dict[str, object]:
        """What a search chose as the next version of `name`. Raises: ModelNotFound,
        InvalidRequest."""
        job = self._known(job_id)
        if job.request.kind != "optimize" or job.state != "succeeded":
            raise InvalidRequest(
                f"job {job_id} is a {job.request.kind} that {job.state}; only a search that "
                "succeeded has something for the store"
            )
        return await self._added(job_id, name)

    async def _added(self, job_id: str, name: str) -> dict[str, object]:
        store = self._stores.get(job_id)
        if store is None:
            raise InvalidRequest(NOT_KEPT)
        check_writable(store)
        folder = kept_folder(store.root, job_id)
        async with self._adding:
            try:
                card = await asyncio.to_thread(add_kept, folder, store, name)
            except OSError as error:
                raise EngineFailed(
                    f"the server's store cannot be written: {error.strerror}"
                ) from None
        found: dict[str, object] = card.model_dump(mode="json")
        return found

    async def _wanted(
        self, setup: JobsSetup, served: ServedVariant
    ) -> tuple[VariantConfig, ModelStore]:
        """How the model is served now, which a load at run time may have changed."""
        wanted = await self._hands.serving(served.name) if setup.is_controlled else None
        if wanted is not None:
            store = ModelStore(Path(wanted.store)) if wanted.store else setup.store
            return of_version(wanted.variant, served.version, store), store
        found = setup.config.variants.get(served.name)
        if found is None:
            raise ModelNotFound(f"there is no model '{served.name[:80]}'")
        return of_version(found, served.version, setup.store), setup.store

    def _check_search(
        self, request: OptimizeRequest, wanted: VariantConfig, store: ModelStore
    ) -> None:
        if wanted.card is not None:
            raise InvalidRequest(
                f"'{request.model}' is written in the configuration (`card`): only models of the "
                "store are searched over"
            )
        if request.add_to_store:
            check_writable(store)

    def _known(self, job_id: str) -> Job:
        job = self._jobs.get(job_id)
        if job is None:
            raise ModelNotFound(f"there is no job '{job_id[:80]}'")
        return job

    def _go_on(self) -> None:
        """Start what may start, forget what there is no room for."""
        while (job := next_to_start(list(self._jobs.values()))) is not None:
            self._jobs[job.id] = job.started(time.time(), "asks the cluster for room")
            processes: list[Any] = []
            loop = asyncio.get_running_loop()
            work = loop.create_task(self._work(job.id, self._waiting.pop(job.id), processes))
            self._works[job.id] = work
            self._follows[job.id] = loop.create_task(self._follow(job.id, work, processes))
        for job_id in to_forget(list(self._jobs.values())):
            del self._jobs[job_id]
        for job_id in [each for each, job in self._jobs.items() if job.has_ended]:
            self._waiting.pop(job_id, None)
        has = with_artefact(list(self._jobs.values()))
        for job_id in [each for each in self._stores if each not in has]:
            remove_kept(self._stores.pop(job_id).root, job_id)

    async def _follow(
        self, job_id: str, work: asyncio.Task[Event], processes: Sequence[Any]
    ) -> None:
        """To its end: it has ended when nothing of it is left."""
        await asyncio.wait([work])
        for process in processes:
            await self._hands.end(process)
        if work.cancelled():
            self._jobs[job_id] = self._jobs[job_id].cancelled(time.time(), CANCELLED)
        else:
            await self._settle(job_id, work.result())
        del self._follows[job_id], self._works[job_id]
        logger.info("job %s %s", job_id, self._jobs[job_id].state)
        self._go_on()

    async def _work(self, job_id: str, waiting: _Waiting, processes: list[Any]) -> Event:
        """A `result` or an `error`. `processes`: those that it starts, for whoever ends them."""
        request = self._jobs[job_id].request
        try:
            async with asyncio.timeout(request.timeout_s):
                reserved = await asyncio.to_thread(self._hands.reserve, request)
                process = self._hands.process(reserved)
                processes.append(process)
                remote = waiting.origin.remote
                await process.start.remote(
                    waiting.work, waiting.body, remote, LIMITS.max_result_bytes
                )
                del waiting  # the tensors lie on the job's node now
                self._jobs[job_id] = self._jobs[job_id].running(reserved.reason)
                while True:
                    for event in await process.next.remote():
                        if "step" not in event:
                            return cast("Event", event)
                        self._jobs[job_id] = self._jobs[job_id].told(str(event["step"]))
        except TimeoutError:
            said = f"it did not end within its timeout_s ({request.timeout_s:g}); ask for more"
            if request.kind == "optimize":
                said += ", what was built is found again"
            return {"error": ("DeadlineExceeded", said)}
        except SquadronError as error:
            return {"error": (type(error).__name__, error.message)}
        except RayError as error:
            said = str(error).partition("\n")[0]
            return {"error": ("EngineFailed", f"its process on the cluster was lost: {said}")}
        except Exception:
            # It is told as failed: one that stayed "running" would keep all others waiting.
            logger.exception("job %s", job_id)
            return {"error": ("EngineFailed", UNFORESEEN)}

    async def _settle(self, job_id: str, outcome: Event) -> None:
        if "error" in outcome:
            self._fail(job_id, *outcome["error"])
            return
        result: bytes = outcome["result"]
        name = getattr(self._jobs[job_id].request, "add_to_store", "")
        if name:
            # Here and not in the job's process, which may be killed at any time.
            try:
                added = await self._added(job_id, name)
            except SquadronError as error:
                self._fail(job_id, type(error).__name__, error.message)
                return
            except Exception:
                logger.exception("job %s", job_id)
                self._fail(job_id, "EngineFailed", UNFORESEEN)
                return
            told = {"name": added["name"], "version": added["version"]}
            result = result[:-1] + b',"added":' + orjson.dumps(told) + b"}"
        self._jobs[job_id] = self._jobs[job_id].succeeded(time.time(), result)

    def _fail(self, job_id: str, kind: str, message: str) -> None:
        self._jobs[job_id] = self._jobs[job_id].failed(time.time(), kind, message)

    async def _watch_controller(self) -> None:
        num_gone = 0
        while num_gone < ORPHANED_LOOKS:
            await asyncio.sleep(self._look_s)
            is_there = await asyncio.to_thread(self._hands.has_controller)
            num_gone = 0 if is_there else num_gone + 1
        for work in list(self._works.values()):
            work.cancel()
        if self._follows:
            await asyncio.wait(list(self._follows.values()))
        for job_id, store in self._stores.items():
            remove_kept(store.root, job_id)
        self._hands.leave()


def get_or_start_desk(app: str) -> ActorHandle[JobDesk]:
    actor = ray.remote(JobDesk)
    return cast(
        "ActorHandle[JobDesk]",
        actor.options(
            name=desk_name(app),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_concurrency=1000,
            num_cpus=0,
        ).remote(app),
    )


def find_desk(app: str) -> ActorHandle[JobDesk] | None:
    try:
        return cast("ActorHandle[JobDesk]", ray.get_actor(desk_name(app), NAMESPACE))
    except ValueError:
        return None
