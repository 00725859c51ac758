"""The Serve deployment that hosts a door: Serve starts, checks, replaces and drains it; the door
owns its listeners. Serve's own ingress reaches the same routes through `__call__`, a second door.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response

from actors.access.callers import callers_of
from actors.access.opened import opened_by
from actors.access.tls import ServerTls
from actors.autoscaling.door import LoadWatch, report_load
from actors.delivery.node_link import NodeLinks, replica_folder
from actors.delivery.transport import (
    HandleTransport,
    MemoryTransport,
    NodeFirstTransport,
    Transport,
)
from actors.experiments.kept import StateSetup
from actors.experiments.reporter import Reporter
from actors.extensions.offered import make_offered
from actors.garbage import collect_rarely
from actors.jobs.client import JobsClient
from actors.jobs.desk import JobsSetup, find_desk, get_or_start_desk
from actors.language.streams import LanguageStreams
from actors.listeners import asgi
from actors.listeners.grpc.listener import GrpcListener
from actors.listeners.http import HttpListener
from actors.listeners.metrics import MetricsListener
from actors.listeners.port_claim import PortClaim, claim_port
from actors.logs.notes import follows_of, noted
from actors.logs.set_up import set_up_logs
from actors.measures.processes import watch_process
from actors.model_replica import ModelReplica, ReplicaSetup, brought
from actors.node_folder import metrics_folder, node_folder
from actors.repository.control import RepositorySetup
from actors.repository.start import get_or_start_controller
from actors.sequences.affinity import NodeFirstReplicas, Replicas
from actors.streams.transport import HandleStreams, NodeFirstStreams, StreamTransport
from actors.tracing.opened import door_spans, tracer_of
from cluster.config.scaling.autoscaling import AutoscalingBudget
from cluster.config.security.exposure import warnings_of
from cluster.config.server import ServerConfig
from cluster.errors import EngineFailed
from cluster.observability.metrics import make_metrics
from cluster.routing.table import RoutingTable, VariantRoute

logger = logging.getLogger("squadron.gateway")

GOODBYE_S = 1.0
"""How long a door that ends waits for its last counts to be taken."""
LOOK_AGAIN_S = 0.05
"""How often a door looks whether its last requests to a replaced model are answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySetup:
    """`colocated`: the models that the door holds itself. `generation` orders configurations: a
    door of a newer one brings a newer table. `state_place` tells servers of one name apart."""

    server: ServerConfig
    table: RoutingTable
    colocated: tuple[ReplicaSetup, ...] = ()
    generation: int
    repository: RepositorySetup | None = None
    jobs: JobsSetup | None = None
    state_place: str = ""
    autoscaling: AutoscalingBudget | None = None


class Gateway:
    """Ready when its ports listen."""

    # Serve tears down also what never came to stand.
    _is_open = False

    # Serve awaits an asynchronous constructor, on the loop that the door will live on.
    # `models` are handles that Serve makes of the deployments bound beside the door; the door finds
    # its models by name in the routing table instead, so that it need not restart for a new one.
    async def __init__(self, setup: GatewaySetup, *models: DeploymentHandle[Any]) -> None:  # type: ignore[misc]
        app = serve.get_replica_context().app_name
        self._setup = setup
        self._app = app
        server = setup.server
        folder = node_folder()
        metrics = make_metrics(metrics_folder())
        self._door_id = serve.get_replica_context().replica_id.to_full_id_str()
        self._telling: asyncio.Task[None] | None = None
        self._own: dict[str, ModelReplica] = {}
        set_up_logs(server.logging, role="door")
        self._tracer = tracer_of(server.tracing, role="door")
        make_door, make_routes = opened_by(callers_of(server, folder))
        self._door = make_door(
            server,
            setup.table,
            self._transport,
            metrics,
            make_streams=self._stream_transport,
            make_sequences=self._sequence_replicas,
        )
        self._spans = door_spans(self._tracer, server.tracing)
        self._door.follows = follows_of(self._spans, server.logging)
        for model in setup.colocated:
            model = await asyncio.to_thread(brought, model)
            # Loading and warming up take their time; the loop is Serve's as well.
            self._own[model.variant] = await asyncio.to_thread(
                ModelReplica,
                model,
                metrics=metrics,
                flush_later=self._door.flush_with,
                tracer=self._tracer,
            )
        if setup.repository is not None or self._door.experiments.is_needed:
            # What is served, and how the traffic splits by now, is known to the controller only: a
            # door that listens knows it too.
            await self._adopt_first_table()
        for warning in warnings_of(server):
            logger.warning(warning)
        offered = make_offered(
            self._door,
            metrics_folder(),
            self._controller,
            door_id=self._door_id,
            jobs=JobsClient(
                setup.jobs, start=partial(get_or_start_desk, app), find=partial(find_desk, app)
            ),
        )
        routes = make_routes(self._door, offered, app=app)
        self._routes = noted(routes, server.logging)
        self._claims: list[PortClaim] = []
        self._tls = ServerTls(server.tls) if server.tls is not None else None
        context = self._tls.context if self._tls is not None else None
        self._http = HttpListener(self._routes, server.limits, context)
        self._grpc = GrpcListener(self._door, offered)
        self._metrics = MetricsListener(routes, server.metrics, server.limits, folder, context)
        try:
            await self._listen(server, folder)
        except BaseException:
            self._release_claims()
            raise
        watch_process("door")
        collect_rarely()
        self._following = asyncio.get_running_loop().create_task(self._follow())
        self._door.check_health = self.check_health
        self._reporter = Reporter(
            self._door.experiments, offered.controller, offered.statistics.costs
        )
        self._reporting: asyncio.Task[None] | None = None
        if self._door.experiments.is_needed:
            self._reporting = asyncio.get_running_loop().create_task(self._reporter.run())
        self._telling_load: asyncio.Task[None] | None = None
        if setup.autoscaling is not None:
            watch = LoadWatch(self._door, setup.autoscaling, setup.generation)
            load = report_load(watch, app, self._door_id)
            self._telling_load = asyncio.get_running_loop().create_task(load)
        self._is_open = True

    async def _listen(self, server: ServerConfig, folder: Path) -> None:
        for key, listener in (("http", server.http), ("grpc", server.grpc)):
            claim = await asyncio.to_thread(
                claim_port, listener.host, listener.port, key=f"server.{key}.port", folder=folder
            )
            self._claims.append(claim)
        await self._http.start(self._claims[0], folder)
        credentials = self._tls.credentials() if self._tls is not None else None
        await self._grpc.start(self._claims[1], credentials)
        await self._metrics.start()

    def _release_claims(self) -> None:
        for claim in self._claims:
            claim.release()

    def _transport(self, route: VariantRoute) -> Transport:
        transport = self._plain_transport(route)
        return transport if self._spans is None else self._spans.transport(transport)

    def _plain_transport(self, route: VariantRoute) -> Transport:
        own = self._own.get(route.name)
        if own is not None:
            return MemoryTransport(own)
        app = route.app or self._app
        folder = replica_folder(node_folder(), app, route.deployment)
        return NodeFirstTransport(NodeLinks(folder), HandleTransport(route.deployment, app))

    def _stream_transport(self, route: VariantRoute) -> StreamTransport:
        app = route.app or self._app
        folder = replica_folder(node_folder(), app, route.deployment)
        handle = HandleStreams(route.deployment, app)
        if route.facts.is_language:
            return LanguageStreams(folder, handle, route.language_routing)
        return NodeFirstStreams(folder, handle)

    def _sequence_replicas(self, route: VariantRoute) -> Replicas:
        app = route.app or self._app
        folder = replica_folder(node_folder(), app, route.deployment)
        return NodeFirstReplicas(NodeLinks(folder), route.deployment, app)

    async def __call__(self, request: Request) -> Response:
        limit = self._setup.server.limits.max_body_bytes
        return await asgi.answer(
            self._routes, request, max_body_bytes=limit, budget=self._http.budget
        )

    def check_health(self) -> None:
        """Raises: EngineFailed when a listener or a model of the door's own has stopped; Serve then
        replaces this door."""
        for port, listener in (
            ("HTTP", self._http),
            ("gRPC", self._grpc),
            ("metrics", self._metrics),
        ):
            if not listener.is_listening:
                raise EngineFailed(f"the door no longer listens on its {port} port")
        if self._following.done():
            raise EngineFailed("the door no longer follows the routing table")
        for model in self._own.values():
            model.check_health()

    async def __del__(self) -> None:
        # Serve's only hook. The process is killed `graceful_shutdown_timeout_s` after Serve asked,
        # which is longer than any deadline (see `actors.app`).
        if not self._is_open:
            return
        self._door.is_draining = True
        if self._telling_load is not None:
            self._telling_load.cancel()
        patience_s = self._setup.server.limits.default_timeout_s
        await asyncio.gather(self._http.drain(patience_s), self._grpc.drain(patience_s))
        # Until here it takes every new table: it has been answering requests by it.
        self._following.cancel()
        if self._reporting is not None:
            self._reporting.cancel()
            with contextlib.suppress(Exception):  # the controller may be gone as well
                async with asyncio.timeout(GOODBYE_S):
                    await self._reporter.send()
        await self._metrics.close()
        for model in self._own.values():
            await model.close()
        await self._door.close()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)
        self._release_claims()

    async def _follow(self) -> None:
        """Keep the newest table. Without a controller the last one stays good."""
        while True:
            try:
                await self._listen_to_controller()
            except Exception as error:
                # The controller died or is restarting: requests go on, we ask again soon.
                logger.warning("no controller (%s); the last table stays", type(error).__name__)
            await asyncio.sleep(0.5)

    async def _controller(self) -> Any:
        # Ray types the result of an async method as never; calls of the controller do return.
        return await asyncio.to_thread(get_or_start_controller, self._app)

    async def _adopt_first_table(self) -> None:
        """A controller that dies meanwhile is asked again when it is back."""
        while True:
            try:
                controller = await self._adopting_controller()
                table = await controller.next_table.remote(0, self._door_id)
            except RayActorError:
                await asyncio.sleep(LOOK_AGAIN_S)
            else:
                if table is not None:
                    self._door.adopt(table)
                return

    async def _adopting_controller(self) -> Any:
        """The controller, told our configuration."""
        setup = self._setup
        controller = await self._controller()
        server = setup.server
        if server.logging.format == "json":
            await controller.log_as.remote(server.logging)
        state = StateSetup(
            folder=server.state_folder,
            place=setup.state_place,
            redis=server.state_redis,
            postgres=server.state_postgres,
        )
        await controller.adopt.remote(setup.table, setup.generation, setup.repository, state)
        return controller

    async def _listen_to_controller(self) -> None:
        controller = await self._adopting_controller()
        while True:
            self._tell_when_at_rest(controller, self._door.table.version)
            table = await controller.next_table.remote(self._door.table.version, self._door_id)
            if table is not None:
                self._door.adopt(table)

    def _tell_when_at_rest(self, controller: Any, version: int) -> None:
        """Once for each table: the controller then deletes what it no longer names."""
        if self._setup.repository is None:
            return

        async def tell() -> None:
            while not self._door.is_at_rest():  # noqa: ASYNC110  (nobody tells; it is over soon)
                await asyncio.sleep(LOOK_AGAIN_S)
            with contextlib.suppress(RayActorError):  # it asks anew when it is back
                await controller.at_rest.remote(self._door_id, version)

        self._telling = asyncio.get_running_loop().create_task(tell())
