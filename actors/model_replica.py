"""The Serve deployment that computes one variant: queue -> batch -> engine.

The loop decides, two threads work: one prepares inputs as they come (decodes photos, tokenises),
one runs the engine. A batch is formed when the engine is free, never earlier.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from actors.batching.replies import answer, answer_all, dropped_reply, gone
from actors.batching.runner import Work
from actors.batching.tally import BatchTally
from actors.batching.warm_up import warm_up
from actors.caching.prepared_cache import PreparedCache
from actors.delivery.withdrawals import Withdrawals
from actors.node_folder import metrics_folder
from actors.sharding.replica import Sharding
from actors.tracing.opened import close_spans, opened_runs, spans_of
from actors.tracing.spans import ProcessTracer
from cluster.config.cache import PreprocessCacheConfig
from cluster.config.language.settings import LanguageConfig
from cluster.config.model_card import ModelCard
from cluster.config.observability.logs import LogsConfig
from cluster.config.observability.tracing import TracingConfig
from cluster.config.sequences import SequencesConfig
from cluster.config.variant import BatchingConfig, ProcessLimits
from cluster.engines.engine import Engine, EngineSetup
from cluster.engines.table import make_engine
from cluster.errors import DeadlineExceeded, EngineFailed, SquadronError
from cluster.models import EngineName
from cluster.observability.metrics import Metrics, make_metrics
from cluster.optimization.remote.mirror import RemoteVersion
from cluster.processing.pipeline import Pipeline, Prepared
from cluster.protocols.envelope import Call, Reply, decode_calls, encode_replies
from cluster.scheduling.admission import Reject
from cluster.scheduling.decision import Idle, Queued, Run, Wait
from cluster.scheduling.policy import bucket_of
from cluster.scheduling.scheduler import Scheduler
from cluster.tensors import Tensor

STALLED_S = 120.0
"""An engine that has been at one batch for this long is taken for hung and the replica replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSetup:
    """All that one replica needs: its own section of the config and its model card. `version_of`:
    the model that callers know the variant by, where that is another name. `remote`: where the
    folder's content comes from on a node that does not have it."""

    variant: str
    card: ModelCard
    folder: Path
    engine: EngineName
    device: str
    threads: int
    is_processed: bool
    batching: BatchingConfig
    limits: ProcessLimits = field(default_factory=ProcessLimits)
    sequences: SequencesConfig | None = None
    llm: LanguageConfig | None = None
    sharding: Sharding | None = None
    placement_reason: str = ""
    planned_gpus: float = 0.0
    version_of: str = ""
    preprocess_cache: PreprocessCacheConfig = field(default_factory=PreprocessCacheConfig)
    remote: RemoteVersion | None = None
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    tracing: TracingConfig | None = None
    logs: LogsConfig = field(default_factory=LogsConfig)

    @property
    def is_batched(self) -> bool:
        """Whether requests share a run of the engine."""
        return self.card.batched or self.batching.ragged is not None

    @property
    def metric_labels(self) -> tuple[str, str]:
        """Model and version, as Triton's metrics have them."""
        return self.version_of or self.variant, self.card.version


def brought(setup: ReplicaSetup) -> ReplicaSetup:
    """The setup with its folder on this node. Raises: ConfigError when it cannot be had."""
    if setup.remote is None:
        return setup
    return replace(setup, folder=setup.remote.bring())


class ModelReplica:
    """Serve constructs one a replica; ready when the engine is warm."""

    def __init__(
        self,
        setup: ReplicaSetup,
        *,
        metrics_at: Path | None = None,
        metrics: Metrics | None = None,
        make_ready: Callable[[ReplicaSetup], Engine] | None = None,
        flush_later: Callable[[Callable[[], None]], None] | None = None,
        tracer: ProcessTracer | None = None,
    ) -> None:
        """`metrics_at`: where this process writes its metrics; the node's own folder if None.
        `metrics`: those of the process, where it has some already.
        `make_ready` gives the engine, loaded and warm; the one of the setup if None.
        `flush_later`: see `BatchTally`. `tracer`: that of the process, where it has one already."""
        self._setup = setup
        self._metrics = metrics or make_metrics(metrics_at or metrics_folder())
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._pipeline = Pipeline(
            setup.card,
            setup.folder,
            raw=not setup.is_processed,
            pad_values=setup.batching.padding,
            ragged=setup.batching.ragged,
        )
        self._prepared: PreparedCache | None = None
        if setup.preprocess_cache.enabled:
            self._prepared = PreparedCache(
                setup.preprocess_cache, self._metrics.cache, setup.metric_labels
            )
        self._scheduler: Scheduler[Work] = Scheduler(setup.batching, is_batched=setup.is_batched)
        # In the engine's own thread from the start: some runtimes bind a device to a thread.
        self._engine: Engine = self._computing.submit(make_ready or loaded_engine, setup).result()
        self._spans = spans_of(setup.tracing, setup.variant, tracer)
        make_engine_run, make_runner = opened_runs(self._spans)
        self._engine_run = make_engine_run(
            self._engine,
            max_rows=self._scheduler.policy.max_batch_size,
            is_batched=setup.card.batched,
        )
        if make_ready is None:
            warming = (self._engine, self._engine_run, self._scheduler)
            self._computing.submit(warm_up, *warming).result()
        version = setup.metric_labels
        self.tally = BatchTally(self._metrics, *version, flush_later=flush_later)
        self._runner = make_runner(
            *(self._engine_run, self._pipeline, self.tally),
            variant=setup.variant,
            is_batched=setup.is_batched,
        )
        self._pending = self._metrics.pending.labels(*version)
        # A runtime that binds its device to a thread is not called from another one.
        facts = self._engine.facts
        is_here = facts.device == "cpu" and facts.threads == 1
        self._is_inline = self._pipeline.is_plain and is_here
        self._num_pending = 0
        self._wake = asyncio.Event()
        self._busy_since_s: float | None = None
        self._loop_task: asyncio.Task[None] | None = None

    async def infer(
        self, message: bytes | memoryview, withdrawals: Withdrawals | None = None
    ) -> bytes:
        """An envelope of calls in, an envelope of replies out; each call has its own outcome.

        What still waits is not run once it is cancelled (the callers are gone), or once it is
        among the `withdrawals`.
        """
        calls = decode_calls(message)
        replies = self.answer_now(calls)
        if replies is None:
            replies = await self.answer(calls, withdrawals)
        return encode_replies(replies)

    def answer_now(self, calls: Sequence[Call]) -> list[Reply] | None:
        """The replies at once, where that is cheaper than a queue; None where it is not.

        The calls fit the model: a door checked them, and the engine checks the batch.
        """
        rows = sum([call.rows for call in calls])
        if not self._is_inline or not self._scheduler.runs_now(rows):
            return None
        if len(calls) > 1 and not self._setup.is_batched:
            return None
        began_s = time.monotonic()
        replies = self._runner.run_here(calls)
        if replies is not None:
            self._scheduler.ran(rows, time.monotonic() - began_s, self._runner.cpu_s)
        return replies

    async def answer(
        self, calls: Sequence[Call], withdrawals: Withdrawals | None = None
    ) -> list[Reply]:
        """The replies when the queue and the engine have come to them; see `infer`."""
        self._start_once()
        withdrawals = Withdrawals() if withdrawals is None else withdrawals
        arrived_s = time.monotonic()
        replies: dict[int, Reply | None] = dict.fromkeys([call.call_id for call in calls])
        wanted = calls
        rows, left_s = sum([c.rows for c in calls]), min([c.left_s for c in calls], default=0.0)
        if not self._scheduler.admit_all(rows=rows, left_s=left_s):
            replies = {call.call_id: self._refusal(call) for call in calls}
            wanted = [call for call in calls if replies[call.call_id] is None]
        if self._spans is not None:
            self._spans.waits()
        items = await self._enqueue(wanted, replies, arrived_s, withdrawals)
        withdrawals.follow(partial(self._withdraw, items))
        self._wake.set()
        try:
            for item in items:
                assert item.payload.future is not None
                reply = await item.payload.future
                replies[reply.call_id] = reply
        except asyncio.CancelledError:
            for item in items:
                self._scheduler.withdraw(item)
            raise
        return [reply for reply in replies.values() if reply is not None]

    def batch_s(self) -> dict[int, float]:
        """Rows -> seconds of such a batch, as measured. Empty where nothing is batched."""
        most = self._scheduler.cap_rows
        return self._scheduler.costs.curve(None).told(most) if most > 1 else {}

    def check_health(self) -> None:
        """Serve asks every health period. Raises: EngineFailed when this replica cannot answer."""
        if self._loop_task is not None and self._loop_task.done():
            raise EngineFailed(f"{self._setup.variant}: the batching loop has ended")
        busy_since_s = self._busy_since_s
        if busy_since_s is not None and time.monotonic() - busy_since_s > STALLED_S:
            raise EngineFailed(f"{self._setup.variant}: one batch has run for over {STALLED_S} s")

    async def close(self) -> None:
        """After the last request: stop batching, free the engine."""
        if self._loop_task is not None:
            self._loop_task.cancel()
        self._engine.close()
        await close_spans(self._spans)

    def _start_once(self) -> None:
        # Serve constructs replicas outside a coroutine: the loop's task starts with a call.
        if self._loop_task is None:
            self._loop_task = asyncio.get_running_loop().create_task(self._run_batches())

    def _withdraw(self, items: list[Queued[Work]], call_id: int) -> None:
        """Its caller is gone: one that waits is not run."""
        for item in items:
            if item.payload.call.call_id == call_id and self._scheduler.withdraw(item):
                answer(item, Reply(call_id=call_id, error=gone()))

    def _prepare(
        self, calls: Sequence[Call], withdrawals: Withdrawals
    ) -> list[Prepared | SquadronError]:
        found: list[Prepared | SquadronError] = []
        for call in calls:
            if call.call_id in withdrawals:
                found.append(gone())
                continue
            try:
                found.append(self._prepared_inputs(call.inputs))
            except SquadronError as error:
                found.append(error)
            except Exception as error:
                found.append(EngineFailed(f"preparing the inputs failed: {type(error).__name__}"))
        return found

    def _prepared_inputs(self, inputs: tuple[Tensor, ...]) -> Prepared:
        def prepare() -> Prepared:
            return self._pipeline.prepare({tensor.name: tensor.array for tensor in inputs})

        return prepare() if self._prepared is None else self._prepared.prepared(inputs, prepare)

    def _refusal(self, call: Call) -> Reply | None:
        """None for a call that can be answered in time; it then counts as being prepared."""
        now_s = time.monotonic()
        verdict = self._scheduler.admit(
            now_s, rows=call.rows, left_s=call.left_s, priority=call.priority, tenant=call.tenant
        )
        if not isinstance(verdict, Reject):
            return None
        message = f"Request timeout expired: {verdict.reason}"
        error = DeadlineExceeded(message, retry_after_s=verdict.retry_after_s)
        return Reply(call_id=call.call_id, error=error)

    async def _enqueue(
        self,
        calls: Sequence[Call],
        replies: dict[int, Reply | None],
        arrived_s: float,
        withdrawals: Withdrawals,
    ) -> list[Queued[Work]]:
        """Prepare the calls and queue them; what goes wrong becomes the call's reply."""
        loop = asyncio.get_running_loop()
        try:
            if self._pipeline.is_plain:
                prepared = self._prepare(calls, withdrawals)
            else:
                prepare = partial(self._prepare, calls, withdrawals)
                prepared = await loop.run_in_executor(self._preparing, prepare)
                self.tally.spent(prepare=time.monotonic() - arrived_s)
        finally:
            self._scheduler.arrived(sum(call.rows for call in calls))
        items: list[Queued[Work]] = []
        for call, outcome in zip(calls, prepared, strict=True):
            if isinstance(outcome, SquadronError):
                replies[call.call_id] = Reply(call_id=call.call_id, error=outcome)
                continue
            item = self._queued(call, outcome, arrived_s, loop.create_future())
            try:
                self._scheduler.push(item)
            except SquadronError as error:
                replies[call.call_id] = Reply(call_id=call.call_id, error=error)
            else:
                items.append(item)
        return items

    def _queued(
        self, call: Call, prepared: Prepared, arrived_s: float, future: asyncio.Future[Reply]
    ) -> Queued[Work]:
        bounds = self._setup.batching.buckets
        shape = prepared.shape_key
        if bounds and prepared.length:
            shape = bucket_of(prepared.length, bounds)
        return Queued(
            payload=Work(call=call, prepared=prepared, arrived_s=arrived_s, future=future),
            rows=call.rows,
            arrived_s=arrived_s,
            deadline_s=arrived_s + call.left_s,
            shape_key=shape,
            priority=call.priority,
            tenant=call.tenant,
            waited_s=call.waited_s,
            weight=call.rows * prepared.length,
        )

    async def _run_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            decision = self._scheduler.decide(time.monotonic())
            for drop in decision.dropped:
                answer(drop.item, dropped_reply(drop))
            if self._num_pending != len(self._scheduler):
                self._num_pending = len(self._scheduler)
                self._pending.set(self._num_pending)
            match decision:
                case Idle():
                    await self._wake.wait()
                case Wait(until_s=until_s):
                    timer = loop.call_later(max(0.0, until_s - time.monotonic()), self._wake.set)
                    await self._wake.wait()
                    timer.cancel()
                case Run() as run:
                    self._busy_since_s, loop_s = time.monotonic(), None
                    if self._is_inline and self._scheduler.is_cheap(run.rows):
                        replies = self._compute(run)
                        loop_s = time.monotonic() - self._busy_since_s
                        # Those who were answered, and those who came, have their turn first.
                        await asyncio.sleep(0)
                    else:
                        replies = await loop.run_in_executor(
                            self._computing, self._compute, run, loop
                        )
                    self._busy_since_s = None
                    self._scheduler.finished(
                        time.monotonic(),
                        is_whole=all(reply.error is None for reply in replies),
                        cpu_s=self._runner.cpu_s,
                        loop_s=loop_s,
                    )
                    self._scheduler.cap(self._engine_run.max_rows)

    def _compute(
        self, run: Run[Work], loop: asyncio.AbstractEventLoop | None = None
    ) -> list[Reply]:
        """Run a batch, in the engine's thread or in the loop, and hand every reply to the loop."""
        if self._spans is not None:
            self._spans.taken([(item.payload.call, item.arrived_s) for item in run.batch])
        replies = self._runner.run([item.payload for item in run.batch])
        if loop is None:
            answer_all(run.batch, replies)
        else:
            loop.call_soon_threadsafe(answer_all, run.batch, replies)
        return replies


def loaded_engine(setup: ReplicaSetup) -> Engine:
    engine = make_engine(
        setup.engine,
        EngineSetup(
            card=setup.card,
            folder=setup.folder,
            device=setup.device,
            threads=setup.threads,
            options=setup.options,
            batch_sizes=setup.batching.usual_sizes,
        ),
    )
    engine.load()
    return engine
