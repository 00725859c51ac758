"""The transport-free core of a door: a request in, a response or an error out.

Knows no HTTP, gRPC or ASGI. Listeners turn bytes into `InferenceRequest` and back; everything that
is decided about a request is decided here: which model, which variant, deadline, limits.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial

from actors.access.callers import Callers
from actors.autoscaling.answers import Answers
from actors.caching.route_cache import RouteCache
from actors.delivery.answer import Answer
from actors.delivery.answer_size import AnswerSizes
from actors.delivery.calls import call_of
from actors.delivery.dispatchers import Arrivals, Dispatchers, MakeTransport, Way
from actors.delivery.ticket import Ticket
from actors.delivery.turn_clock import TurnClock
from actors.ensembles.member import MemberRules
from actors.ensembles.run import EnsembleRun, RunSetup
from actors.experiments.desk import ExperimentDesk
from actors.experiments.mirror import Mirror
from actors.request_tally import RequestTally, SeeSums
from actors.sequences.answers import MakeSequences, SequenceAnswers
from actors.streams.answers import ONE_ANSWER, MakeStreams, StreamAnswers
from actors.tracing.follows import Follows
from cluster.config.server import ServerConfig
from cluster.errors import (
    ModelNotFound,
    NoReadyReplica,
    Overloaded,
    SquadronError,
    Unsupported,
)
from cluster.observability.metrics import Metrics
from cluster.protocols.envelope import Reply
from cluster.protocols.extensions.load_report import LoadReport
from cluster.protocols.v2_check import check_request
from cluster.requests import InferenceRequest, InferenceResponse, time_left_s
from cluster.routing.table import (
    EnsembleRoute,
    ExperimentRoute,
    Route,
    RoutingTable,
    VariantRoute,
    version_of,
)
from cluster.tensors import Tensor

Outcome = InferenceResponse | SquadronError


class FrontDoor:
    """One a door process, on one event loop. `callers`: who may come in, where there are keys.
    `follows`: what every request is shown to, where there are traces or an access log.

    `check_health` raises EngineFailed when a part of the process has stopped; who knows its parts
    sets it.
    """

    callers: Callers | None = None
    follows: Follows | None = None

    def __init__(
        self,
        server: ServerConfig,
        table: RoutingTable,
        make_transport: MakeTransport,
        metrics: Metrics,
        *,
        draw: Callable[[], float] = random.random,
        make_streams: MakeStreams | None = None,
        make_sequences: MakeSequences | None = None,
    ) -> None:
        self.server = server
        self.table = table
        self.is_draining = False
        self.check_health: Callable[[], None] = _healthy
        self._metrics = metrics
        self._draw = draw
        self._dispatchers = Dispatchers(make_transport, metrics)
        self._num_in_flight = 0
        self._loop = asyncio.get_running_loop()
        self._clock = TurnClock(self._loop)
        self._tally = RequestTally(metrics, lambda: self._num_in_flight)
        self._tally.flush_with(self._dispatchers.write_counts)
        self.answers = Answers(lambda: self.table)
        limit = server.limits.max_response_bytes
        self.answer_sizes = AnswerSizes(limit, metrics.door.answers_too_large)
        self._cache = RouteCache(server.cache, metrics.cache, table)
        self._sequences = SequenceAnswers(make_sequences)
        self.experiments = ExperimentDesk()
        self.experiments.adopt(table)
        self._mirror = Mirror(self, draw)
        self._streams = StreamAnswers(self, make_streams, self._mirror)
        self._ways: tuple[Way, ...] = (self._dispatchers, self._sequences, self._streams)
        self._members = RunSetup(
            ask=self._ask_member, draw=draw, rules=MemberRules(metrics.count_ensemble_event)
        )

    def adopt(self, table: RoutingTable) -> None:
        """Use this table from the next request on."""
        self.table = table
        self._cache.adopt(table)
        self.experiments.adopt(table)
        self._metrics.table_made_s.set(table.version / 1e9)
        for way in self._ways:
            way.adopt(table)

    def is_at_rest(self) -> bool:
        """No request is under way to a deployment that the table no longer names."""
        return all(way.is_at_rest() for way in self._ways)

    def route(self, model: str, version: str = "") -> Route:
        """Raises: ModelNotFound for an unknown name, or a version that is not served."""
        route = self.table.routes.get(model)
        if route is None and model in self.table.unloaded:
            raise ModelNotFound(f"Request for unknown model: '{model}' has no available versions")
        if route is None:
            raise ModelNotFound(f"Request for unknown model: '{model}' is not found")
        if version and version != version_of(route):
            found = self.table.routes.get(self.table.versions_of(model).get(version, ""))
            if found is None:
                text = f"Request for unknown model: '{model}' version {version} is not found"
                raise ModelNotFound(text)
            return found
        return route

    def answering(self, request: InferenceRequest) -> VariantRoute | EnsembleRoute:
        """Who answers; of an experiment its arm for this request. Raises: ModelNotFound."""
        route = self.route(request.model, request.version)
        if isinstance(route, ExperimentRoute):
            route = self._arm(route, request)
        assert not isinstance(route, ExperimentRoute)  # none is an arm
        return route

    def is_streamed(self, request: InferenceRequest) -> bool:
        """Whether it has any number of responses. Raises: ModelNotFound."""
        return self.answering(request).is_streamed

    def not_ready(self) -> tuple[str, ...]:
        """Why the server is not ready; empty when it is."""
        if self.is_draining:
            return ("the server is draining",)
        return self.table.not_ready()

    def flush_with(self, other: Callable[[], None]) -> None:
        """Call `other` whenever this door's own counts are written."""
        self._tally.flush_with(other)

    def watch_tally(self, see: SeeSums) -> None:
        """Show `see` this door's own counts whenever they are written."""
        self._tally.watch(see)

    def arrivals(self) -> Mapping[str, Arrivals]:
        """Of every variant that was asked for."""
        return self._dispatchers.arrivals() | self._streams.arrivals()

    def enter(self, request: InferenceRequest) -> None:
        """Count a request in; `leave` counts it out. Raises: Overloaded when too many are."""
        if self._num_in_flight >= self.server.limits.max_in_flight:
            self._dispatchers.refused.refuse("", "in_flight")
            raise Overloaded("too many requests are in flight", retry_after_s=1)
        if not self._num_in_flight:
            self._tally.wake()
        self._num_in_flight += 1
        if self.follows is not None:
            self.follows.began(request)

    def leave(self, request: InferenceRequest, variant: str, outcome: str, seconds: float) -> None:
        self._num_in_flight -= 1
        self._count(request, variant, outcome, seconds)

    def write_counts(self) -> None:
        """Bring the metrics up to now; they are otherwise half a second behind."""
        self._tally.flush()
        self._cache.write_counts()

    async def close(self) -> None:
        """When no request comes any more."""
        await self._cache.close()

    def load_of(self, model: str) -> LoadReport:
        """For balancers that ask for it with a request: of all models where none is named."""
        models = (model,) if model in self.table.routes else tuple(self.table.routes)
        names = {each.name for one in models for each in self.table.variants_of(one)}
        utilization, rows_waiting = self._dispatchers.load_of(names)
        return LoadReport(
            utilization=utilization,
            requests_in_flight=self._num_in_flight,
            rows_waiting=rows_waiting,
        )

    def class_labels(self, request: InferenceRequest) -> Mapping[str, Sequence[str]]:
        """Output -> class names, as the model's variants know them."""
        variants = self.table.variants_of(self.route(request.model, request.version).name)
        return variants[0].class_labels if len(variants) > 0 else {}

    def sticky_header(self, model: str) -> str:
        """The header whose value binds a caller to an arm; empty when the model has none."""
        return self.experiments.sticky_headers.get(model, "")

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Raises: RequestError, CapacityError or ReplicaError, each with its protocol's status."""
        self.enter(request)
        began_s = time.perf_counter()
        answered_by = ""
        outcome = "cancelled"
        try:
            route = self.route(request.model, request.version)
            deadline_s = self._clock.arrived_s() + self.timeout_s(request)
            answer = await self._ask(route, request, deadline_s)
            answered_by, outcome = answer.variant, "success"
        except SquadronError as error:
            outcome = error.code
            raise
        finally:
            self.leave(request, answered_by, outcome, time.perf_counter() - began_s)
        self._mirror.offer(request, answer.outputs)
        return InferenceResponse(
            model=request.model,
            version=version_of(route),
            request_id=request.request_id,
            variant=answer.variant,
            outputs=answer.outputs,
            parameters=answer.parameters(),
        )

    def stream(self, request: InferenceRequest) -> AsyncGenerator[InferenceResponse, None]:
        """Every response of a decoupled model as it comes, the one of any other. Closing it ends
        the model's work. Raises as `infer` does, at any place: no error, and it was complete."""
        return self._streams.responses(request)

    def begin(
        self, request: InferenceRequest, rows: int, done: Callable[[Outcome], None]
    ) -> Ticket | None:
        """`infer` without a task of its own, for a request that was checked to fit its model.

        None when it takes more than one step or the cache may know it: then `infer` is to be asked.
        `done` is called once, later, with the answer or the error; not at all after `cancel`.
        Raises: Overloaded; InvalidRequest for a timeout that is none.
        """
        if request.version:
            route: Route | None = self.route(request.model, request.version)
        else:
            route = self.table.routes.get(request.model)
        # Before an arm is drawn: a second draw would favour the arms that are not cached.
        if route is None or route.name in self._cache.models:
            return None
        if isinstance(route, ExperimentRoute) and route.is_of_variants:
            route = self._arm(route, request)
        if not isinstance(route, VariantRoute) or route.state == "UNAVAILABLE":
            return None
        # Before the request is counted in: what raises here leaves nothing behind.
        timeout_s = self.timeout_s(request)
        dispatcher = self._dispatchers.of(route)
        self.enter(request)
        if request.assignment is not None:
            self.experiments.began(request)
        began_s = time.perf_counter()
        call = call_of(request, rows)
        deadline_s = self._clock.arrived_s() + timeout_s
        return dispatcher.submit(
            call,
            deadline_s=deadline_s,
            done=partial(self._finish, request, route, began_s, done),
        )

    def cancel(self, ticket: Ticket, request: InferenceRequest) -> None:
        """The caller of `begin` is gone."""
        if ticket.is_open:
            ticket.cancel()
            self.leave(request, "", "cancelled", self._loop.time() - ticket.arrived_s)

    def _finish(
        self,
        request: InferenceRequest,
        route: VariantRoute,
        began_s: float,
        done: Callable[[Outcome], None],
        reply: Reply,
    ) -> None:
        self._num_in_flight -= 1
        seconds = time.perf_counter() - began_s
        if reply.error is not None:
            self._count(request, "", reply.error.code, seconds)
            done(reply.error)
            return
        self._count(request, route.name, "success", seconds)
        done(
            InferenceResponse(
                model=request.model,
                version=route.facts.version if route.model == request.model else "1",
                request_id=request.request_id,
                variant=route.name,
                outputs=reply.outputs,
                parameters={"squadron_variant": route.name},
            )
        )
        if request.assignment is not None:
            self._mirror.offer(request, reply.outputs)

    def timeout_s(self, request: InferenceRequest) -> float:
        """See `time_left_s`."""
        limit_s = self.server.limits.default_timeout_s
        return time_left_s(request, limit_s=limit_s, now_s=self._loop.time())

    async def _ask(self, route: Route, request: InferenceRequest, deadline_s: float) -> Answer:
        if isinstance(route, ExperimentRoute):
            arm = self._arm(route, request)
            self.experiments.began(request)
            return await self._ask(arm, request, deadline_s)
        compute = partial(self._compute, route, request, deadline_s)
        version = version_of(route)
        if not self._cache.takes(route, request):
            return Answer(variant=route.name, version=version, outputs=await compute())
        outputs, how = await self._cache.ask(route, request, deadline_s, compute)
        return Answer(variant=route.name, version=version, outputs=outputs, cache=how)

    async def _compute(
        self, route: VariantRoute | EnsembleRoute, request: InferenceRequest, deadline_s: float
    ) -> tuple[Tensor, ...]:
        if isinstance(route, VariantRoute):
            return await self.ask_variant(route, request, deadline_s)
        return await self.ensemble_run(route, request, deadline_s).outputs()

    def ensemble_run(
        self, route: EnsembleRoute, request: InferenceRequest, deadline_s: float
    ) -> EnsembleRun:
        self.answers.began(route.name, request)
        return EnsembleRun(route, self.table, request, self._members, deadline_s=deadline_s)

    def _arm(self, route: ExperimentRoute, request: InferenceRequest) -> Route:
        return self.route(self.experiments.choose(route, request, self._draw))

    async def ask_variant(
        self, route: VariantRoute, request: InferenceRequest, deadline_s: float
    ) -> tuple[Tensor, ...]:
        """Its outputs, uncounted and uncached. Raises: as `infer`."""
        if route.state == "UNAVAILABLE":
            raise NoReadyReplica(
                f"model '{route.name}' is not at ready state: {route.reason}", retry_after_s=1
            )
        rows = check_request(
            request,
            route.signature,
            max_batch_size=route.batching.max_batch_size,
            is_batched=route.facts.is_batched,
        )
        call = call_of(request, rows)
        if route.facts.is_decoupled:
            raise Unsupported(ONE_ANSWER.format(route.name))
        if route.sequences is not None:
            reply = await self._sequences.run(route, call, request, deadline_s)
        else:
            reply = await self._dispatchers.of(route).run(call, deadline_s=deadline_s)
        return reply.outputs

    async def ask_stream(
        self, route: VariantRoute, request: InferenceRequest, deadline_s: float
    ) -> tuple[Tensor, ...]:
        """A decoupled variant's whole stream as one answer, uncounted. Raises: as `infer`."""
        return await self._streams.whole(route, request, deadline_s)

    async def _ask_member(self, request: InferenceRequest, deadline_s: float) -> tuple[Tensor, ...]:
        work = self._ask(self.route(request.model), request, deadline_s)
        work = self.experiments.counted(request, self.answers.of_member(request, work))
        if self.follows is not None:
            return (await self.follows.member(request, work)).outputs
        return (await work).outputs

    def _count(self, request: InferenceRequest, variant: str, outcome: str, seconds: float) -> None:
        known = self.table.routes.get(request.model)
        # A name that nobody configured must not become a label: callers could fill the memory.
        if known is None:
            self._tally.add("(unknown)", "", variant, outcome, seconds)
        else:
            version = request.version
            if not version or version not in self.table.versions_of(request.model):
                version = version_of(known)
            self._tally.add(request.model, version, variant, outcome, seconds)
        if request.assignment is not None:
            self.experiments.ended(request, outcome, seconds)
        if outcome != "success":
            self.answers.ended(request, outcome)
        if request.follower is not None:
            request.follower.ended(request, variant, outcome)


def _healthy() -> None:
    """Of a door that stands alone: while it answers, it is well."""
