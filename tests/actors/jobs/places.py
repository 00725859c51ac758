"""A door with jobs, without Ray: the desk and the jobs' own processes are the real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from actors.jobs.client import JobsClient
from actors.jobs.desk import JobDesk, JobsSetup
from actors.jobs.process import JobProcess
from actors.listeners.http_routes import HttpRoutes
from actors.variant_facts import Origin, facts_of, origin_of
from cluster.config.squadron import SquadronConfig
from cluster.config.store import ModelStore, new_version, seal
from cluster.control.jobs.job import Reservation, reserve
from cluster.control.jobs.request import JobRequest
from cluster.control.repository import Wanted
from cluster.routing.table import build_table
from tests.actors.client.doors import http_door
from tests.actors.listeners.doors import Door, make_door
from tests.cluster.client.places import ECHO
from tests.cluster.optimization.tiny_nets import TinyMlp, exported


class Remote:
    """An object as a Ray handle: each method is called by `.remote(...)`."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.of, name))


@dataclass(slots=True)
class LocalHands:
    """A cluster of this machine alone, whose one core is free."""

    folder: Path
    processes: list[JobProcess] = field(default_factory=list)
    has_left: bool = False
    is_controller_there: bool = True

    def reserve(self, request: JobRequest) -> Reservation:
        return reserve(request, {"CPU": 1.0}, {"CPU": 2.0})

    def process(self, reserved: Reservation) -> Any:
        self.processes.append(JobProcess(self.folder))
        return Remote(self.processes[-1])

    async def end(self, process: Any) -> None:
        await process.of.stop()

    async def serving(self, variant: str) -> Wanted | None:
        return None

    def has_controller(self) -> bool:
        return self.is_controller_there

    def leave(self) -> None:
        self.has_left = True


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsPlace:
    """`door` serves `mlp`, a small network in `store`; what jobs leave behind is in `scratch`."""

    door: Door
    url: str
    store: ModelStore
    hands: LocalHands
    scratch: Path


def make_store(folder: Path) -> ModelStore:
    store = ModelStore(folder / "store")
    with new_version(store.root, "mlp", "1") as made:
        seal(made, exported(TinyMlp(), made, "mlp"))
    return store


@asynccontextmanager
async def jobs_door(folder: Path, **server: Any) -> AsyncIterator[JobsPlace]:
    store = make_store(folder)
    config = SquadronConfig.model_validate(
        {
            "variants": {
                "mlp": {"source": "mlp", "colocate": "never"},
                # The door's own `simple`, of which nothing is searched or counted.
                "simple": {"card": {**ECHO, "name": "simple"}},
            }
        }
    )
    variant = config.variants["mlp"]
    origin = origin_of("mlp", variant, store)
    assert isinstance(origin, Origin)
    scratch = folder / "jobs"
    hands = LocalHands(scratch)
    desk = Remote(JobDesk("test", hands))
    door = make_door(folder, **server)
    facts = facts_of("mlp", variant, origin)
    table = build_table(config, {"mlp": facts, "simple": facts})
    mlp = replace(table.routes["mlp"], state="READY")  # type: ignore[call-arg]  # a variant's route
    routes = {**door.front.table.routes, "mlp": mlp}
    door.front.adopt(replace(door.front.table, version=2, routes=routes))
    jobs = JobsClient(
        JobsSetup(config=config, store=store, is_controlled=False),
        start=lambda: desk,
        find=lambda: desk,
    )
    offered = replace(door.offered, jobs=jobs)
    door = replace(door, offered=offered, routes=HttpRoutes(door.front, offered, app="test"))
    async with http_door(folder, door) as (_, url):
        yield JobsPlace(door=door, url=url, store=store, hands=hands, scratch=scratch)
        for process in hands.processes:
            await process.stop()
