"""The Serve deployment that computes one variant: queue -> batch -> engine.

The loop decides, two threads work: one prepares inputs as they come (decodes photos, tokenises),
one runs the engine. A batch is formed when the engine is free, never earlier.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from actors.batching.runner import Work
from actors.batching.tally import BatchTally
from actors.node_folder import metrics_folder
from actors.sharding.replica import Sharding
from actors.tracing.opened import close_spans, opened_runs, spans_of
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
from cluster.processing.pipeline import Pipeline, Prepared
from cluster.protocols.envelope import Call, Reply, decode_calls, encode_replies
from cluster.scheduling.admission import Reject
from cluster.scheduling.decision import Dropped, Idle, Queued, Run, Wait
from cluster.scheduling.policy import bucket_of
from cluster.scheduling.scheduler import Scheduler

if TYPE_CHECKING:
    from actors.tracing.spans import ProcessTracer

STALLED_S = 120.0
"""An engine that has been at one batch for this long is taken for hung and the replica replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSetup:
    """All that one replica needs: its own section of the config and its model card."""

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
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    tracing: TracingConfig | None = None
    logs: LogsConfig = field(default_factory=LogsConfig)


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
        )
        self._scheduler: Scheduler[Work] = Scheduler(setup.batching, is_batched=setup.card.batched)
        # In the engine's own thread from the start: some runtimes bind a device to a thread.
        make = make_ready or loaded_engine
        self._engine: Engine = self._computing.submit(make, setup).result()
        self._spans = spans_of(setup.tracing, setup.variant, tracer)
        make_engine_run, make_runner = opened_runs(self._spans)
        self._engine_run = make_engine_run(
            self._engine,
            max_rows=self._scheduler.policy.max_batch_size,
            is_batched=setup.card.batched,
        )
        if make_ready is None:
            self._computing.submit(self._warm_up).result()
        version = setup.variant, setup.card.version
        self.tally = BatchTally(self._metrics, *version, flush_later=flush_later)
        self._runner = make_runner(
            self._engine_run,
            self._pipeline,
            self.tally,
            is_batched=setup.card.batched,
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

    async def infer(self, message: bytes | memoryview) -> bytes:
        """An envelope of calls in, an envelope of replies out; each call has its own outcome.

        When it is cancelled its caller is gone: what of it still waits is not run.
        """
        calls = decode_calls(message)
        replies = self.answer_now(calls)
        return encode_replies(await self.answer(calls) if replies is None else replies)

    def answer_now(self, calls: Sequence[Call]) -> list[Reply] | None:
        """The replies at once, where that is cheaper than a queue; None where it is not.

        The calls fit the model: a door checked them, and the engine checks the batch.
        """
        rows = sum([call.rows for call in calls])
        if not self._is_inline or not self._scheduler.runs_now(rows):
            return None
        if len(calls) > 1 and not self._setup.card.batched:
            return None
        began_s = time.monotonic()
        replies = self._runner.run_here(calls)
        if replies is not None:
            self._scheduler.ran(rows, time.monotonic() - began_s, self._runner.cpu_s)
        return replies

    async def answer(self, calls: Sequence[Call]) -> list[Reply]:
        """The replies when the queue and the engine have come to them; see `infer`."""
        self._start_once()
        arrived_s = time.monotonic()
        replies: dict[int, Reply | None] = dict.fromkeys([call.call_id for call in calls])
        wanted = calls
        rows, left_s = sum([c.rows for c in calls]), min([c.left_s for c in calls], default=0.0)
        if not self._scheduler.admit_all(rows=rows, left_s=left_s):
            replies = {call.call_id: self._refusal(call) for call in calls}
            wanted = [call for call in calls if replies[call.call_id] is None]
        if self._spans is not None:
            self._spans.waits()
        items = await self._enqueue(wanted, replies, arrived_s)
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
        """Rows -> seconds of such a batch, as measured: the least, the largest that there is memory
        for, and powers of two between them. Empty where nothing is batched."""
        most = self._scheduler.cap_rows
        points = self._scheduler.costs.curve(None).points() if most > 1 else ()
        told = {point.rows: point.mean_s for point in points if point.rows <= most}
        ends = {min(told, default=0), max(told, default=0)}
        return {rows: s for rows, s in told.items() if rows in ends or rows.bit_count() == 1}

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

    def _prepare(self, calls: Sequence[Call]) -> list[Prepared | SquadronError]:
        found: list[Prepared | SquadronError] = []
        for call in calls:
            try:
                found.append(self._pipeline.prepare({t.name: t.array for t in call.inputs}))
            except SquadronError as error:
                found.append(error)
            except Exception as error:
                found.append(EngineFailed(f"preparing the inputs failed: {type(error).__name__}"))
        return found

    def _refusal(self, call: Call) -> Reply | None:
        """None for a call that can be answered in time; it then counts as being prepared."""
        verdict = self._scheduler.admit(
            time.monotonic(),
            rows=call.rows,
            left_s=call.left_s,
            priority=call.priority,
            tenant=call.tenant,
        )
        if not isinstance(verdict, Reject):
            return None
        message = f"Request timeout expired: {verdict.reason}"
        error = DeadlineExceeded(message, retry_after_s=verdict.retry_after_s)
        return Reply(call_id=call.call_id, error=error)

    async def _enqueue(
        self, calls: Sequence[Call], replies: dict[int, Reply | None], arrived_s: float
    ) -> list[Queued[Work]]:
        """Prepare the calls and queue them; what goes wrong becomes the call's reply."""
        loop = asyncio.get_running_loop()
        try:
            if self._pipeline.is_plain:
                prepared = self._prepare(calls)
            else:
                prepared = await loop.run_in_executor(self._preparing, self._prepare, calls)
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
            weight=call.rows * prepared.length,
        )

    async def _run_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            decision = self._scheduler.decide(time.monotonic())
            for drop in decision.dropped:
                _answer(drop.item, _dropped_reply(drop))
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
                    self._busy_since_s = time.monotonic()
                    if self._is_inline and self._scheduler.is_cheap(run.rows):
                        replies = self._compute(run)
                        # Those who were answered, and those who came, have their turn first.
                        await asyncio.sleep(0)
                    else:
                        replies = await loop.run_in_executor(
                            self._computing, self._compute, run, loop
                        )
                    self._busy_since_s = None
                    now_s = time.monotonic()
                    is_whole = all(reply.error is None for reply in replies)
                    self._scheduler.finished(now_s, is_whole=is_whole, cpu_s=self._runner.cpu_s)
                    self._scheduler.cap(self._engine_run.max_rows)

    def _compute(
        self, run: Run[Work], loop: asyncio.AbstractEventLoop | None = None
    ) -> list[Reply]:
        """Run a batch, in the engine's thread or in the loop, and hand every reply to the loop."""
        if self._spans is not None:
            self._spans.taken([(item.payload.call, item.arrived_s) for item in run.batch])
        replies = self._runner.run([item.payload for item in run.batch])
        if loop is None:
            _answer_all(run.batch, replies)
        else:
            loop.call_soon_threadsafe(_answer_all, run.batch, replies)
        return replies

    def _warm_up(self) -> None:
        """What warm batches take is the start of the cost curve."""
        sizes = sorted({1, self._scheduler.policy.max_batch_size})
        for rows in sizes:
            self._engine_run.warm_up(rows)
        for rows in {min(size, self._engine_run.max_rows) for size in sizes}:
            began_s, cpu_began_s = time.monotonic(), time.thread_time()
            self._engine.warm_up((rows,))
            cpu_s = time.thread_time() - cpu_began_s
            self._scheduler.ran(rows, time.monotonic() - began_s, cpu_s)
        self._scheduler.cap(self._engine_run.max_rows)


def loaded_engine(setup: ReplicaSetup) -> Engine:
    engine = make_engine(
        setup.engine,
        EngineSetup(
            card=setup.card,
            folder=setup.folder,
            device=setup.device,
            threads=setup.threads,
            options=setup.options,
        ),
    )
    engine.load()
    return engine


def _answer(item: Queued[Work], reply: Reply) -> None:
    future = item.payload.future
    if future is not None and not future.done():
        future.set_result(reply)


def _dropped_reply(drop: Dropped[Work]) -> Reply:
    return Reply(call_id=drop.item.payload.call.call_id, error=drop.error())


def _answer_all(batch: tuple[Queued[Work], ...], replies: list[Reply]) -> None:
    for item, reply in zip(batch, replies, strict=True):
        _answer(item, reply)
