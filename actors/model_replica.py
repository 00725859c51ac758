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

import numpy as np

from actors.node_folder import metrics_folder
from cluster.config.model_card import ModelCard
from cluster.config.variant import BatchingConfig
from cluster.engines.engine import Engine, EngineSetup
from cluster.engines.table import make_engine
from cluster.errors import DeadlineExceeded, EngineFailed, SquadronError
from cluster.models import EngineName
from cluster.observability.metrics import make_metrics
from cluster.processing.pipeline import Pipeline, Prepared
from cluster.protocols.envelope import Call, Reply, decode_calls, encode_replies
from cluster.scheduling.admission import Reject
from cluster.scheduling.decision import Dropped, Idle, Queued, Run, Wait
from cluster.scheduling.policy import bucket_of, policy_of
from cluster.scheduling.scheduler import Scheduler
from cluster.tensors import Array, Tensor, datatype_of

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
    options: dict[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Work:
    """A call in the queue: prepared inputs, and where its reply goes."""

    call: Call
    prepared: Prepared
    future: asyncio.Future[Reply]


class ModelReplica:
    """Serve constructs one a replica; ready when the engine is warm."""

    def __init__(
        self,
        setup: ReplicaSetup,
        *,
        metrics_at: Path | None = None,
        make_ready: Callable[[ReplicaSetup], Engine] | None = None,
    ) -> None:
        """`metrics_at`: where this process writes its metrics; the node's own folder if None.
        `make_ready` gives the engine, loaded and warm; the one of the setup if None."""
        self._setup = setup
        self._metrics = make_metrics(metrics_at or metrics_folder())
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._pipeline = Pipeline(setup.card, setup.folder, raw=not setup.is_processed)
        # In the engine's own thread from the start: some runtimes bind a device to a thread.
        self._engine: Engine = self._computing.submit(make_ready or _ready_engine, setup).result()
        self._scheduler: Scheduler[_Work] = Scheduler(setup.batching, is_batched=setup.card.batched)
        self._wake = asyncio.Event()
        self._busy_since_s: float | None = None
        self._loop_task: asyncio.Task[None] | None = None

    async def infer(self, message: bytes) -> bytes:
        """An envelope of calls in, an envelope of replies out; each call has its own outcome.

        When it is cancelled its caller is gone: what of it still waits is not run.
        """
        self._start_once()
        calls = decode_calls(message)
        arrived_s = time.monotonic()
        replies: dict[int, Reply | None] = dict.fromkeys([call.call_id for call in calls])
        wanted = calls
        rows, left_s = sum([c.rows for c in calls]), min([c.left_s for c in calls], default=0.0)
        if not self._scheduler.admit_all(rows=rows, left_s=left_s):
            replies = {call.call_id: self._refusal(call) for call in calls}
            wanted = [call for call in calls if replies[call.call_id] is None]
        items = await self._enqueue(wanted, replies, arrived_s)
        self._wake.set()
        try:
            for reply in await asyncio.gather(*(item.payload.future for item in items)):
                replies[reply.call_id] = reply
        except asyncio.CancelledError:
            for item in items:
                self._scheduler.withdraw(item)
            raise
        return encode_replies(reply for reply in replies.values() if reply is not None)

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
    ) -> list[Queued[_Work]]:
        """Prepare the calls and queue them; what goes wrong becomes the call's reply."""
        loop = asyncio.get_running_loop()
        try:
            prepared = await loop.run_in_executor(self._preparing, self._prepare, calls)
        finally:
            self._scheduler.arrived(sum(call.rows for call in calls))
        items: list[Queued[_Work]] = []
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
    ) -> Queued[_Work]:
        bounds = self._setup.batching.buckets
        shape = prepared.shape_key
        if bounds and prepared.length:
            shape = bucket_of(prepared.length, bounds)
        return Queued(
            payload=_Work(call=call, prepared=prepared, future=future),
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
        version = (self._setup.variant, self._setup.card.version)
        pending = self._metrics.pending.labels(*version)
        while True:
            self._wake.clear()
            decision = self._scheduler.decide(time.monotonic())
            for drop in decision.dropped:
                _answer(drop.item, _dropped_reply(drop))
            pending.set(len(self._scheduler))
            match decision:
                case Idle():
                    await self._wake.wait()
                case Wait(until_s=until_s):
                    timer = loop.call_later(max(0.0, until_s - time.monotonic()), self._wake.set)
                    await self._wake.wait()
                    timer.cancel()
                case Run() as run:
                    self._busy_since_s = time.monotonic()
                    is_whole = await loop.run_in_executor(self._computing, self._compute, run, loop)
                    self._busy_since_s = None
                    self._scheduler.finished(time.monotonic(), is_whole=is_whole)

    def _compute(self, run: Run[_Work], loop: asyncio.AbstractEventLoop) -> bool:
        """In the engine's thread: run a batch, hand every reply to the loop at once. False when
        any request failed: what that took says nothing of what a batch takes."""
        replies = self._replies(run.batch)
        loop.call_soon_threadsafe(_answer_all, run.batch, replies)
        return all(reply.error is None for reply in replies)

    def _replies(self, batch: tuple[Queued[_Work], ...]) -> list[Reply]:
        started_s = time.monotonic()
        try:
            outputs = self._outputs(batch)
        except Exception as error:
            if len(batch) > 1:
                # One bad request must not take its companions with it: run each by itself.
                return [reply for item in batch for reply in self._replies((item,))]
            call_id = batch[0].payload.call.call_id
            return [Reply(call_id=call_id, error=_as_error(error))]
        compute_s = time.monotonic() - started_s
        self._count(batch, started_s, compute_s)
        rows = sum(item.rows for item in batch)
        replies: list[Reply] = []
        start = 0
        for item in batch:
            stop = start + item.rows
            call = item.payload.call
            mine = outputs if not self._setup.card.batched else _rows(outputs, start, stop)
            wanted = call.wanted or self._public_outputs()
            replies.append(
                Reply(
                    call_id=call.call_id,
                    outputs=tuple(_tensor(name, mine[name]) for name in wanted),
                    queue_s=started_s - item.arrived_s,
                    compute_s=compute_s,
                    batch_rows=rows,
                )
            )
            start = stop
        return replies

    def _outputs(self, batch: tuple[Queued[_Work], ...]) -> dict[str, Array]:
        merged = self._pipeline.merge([item.payload.prepared for item in batch])
        wanted = {name for item in batch for name in item.payload.call.wanted}
        if any(not item.payload.call.wanted for item in batch):
            wanted |= set(self._public_outputs())
        return self._pipeline.finish(self._engine.infer(merged), merged, wanted)

    def _public_outputs(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self._pipeline.signature.outputs)

    def _count(self, batch: tuple[Queued[_Work], ...], started_s: float, compute_s: float) -> None:
        """Once a batch, not once a request."""
        labels = (self._setup.variant, self._setup.card.version)
        rows = sum(item.rows for item in batch)
        queued_s = sum(started_s - item.arrived_s for item in batch)
        self._metrics.inference_rows.labels(*labels).inc(rows)
        self._metrics.executions.labels(*labels).inc()
        self._metrics.statistics.executed_requests.labels(*labels).inc(len(batch))
        self._metrics.statistics.batch_size_executions.labels(*labels, rows).inc()
        self._metrics.statistics.batch_size_compute_us.labels(*labels, rows).inc(compute_s * 1e6)
        self._metrics.queue_duration_us.labels(*labels).inc(queued_s * 1e6)
        self._metrics.compute_duration_us.labels(*labels).inc(compute_s * 1e6 * len(batch))
        self._metrics.batch_rows.labels(self._setup.variant).observe(rows)


def _ready_engine(setup: ReplicaSetup) -> Engine:
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
    policy = policy_of(setup.batching, is_batched=setup.card.batched)
    engine.warm_up(tuple(sorted({1, policy.max_batch_size})))
    return engine


def _as_error(error: Exception) -> SquadronError:
    """What the caller may see. Engines raise ours; anything else is a bug, told by name only."""
    if isinstance(error, SquadronError):
        return error
    return EngineFailed(f"the engine failed: {type(error).__name__}")


def _rows(outputs: dict[str, Array], start: int, stop: int) -> dict[str, Array]:
    return {name: array[start:stop] for name, array in outputs.items()}


def _tensor(name: str, array: Array) -> Tensor:
    return Tensor(name=name, datatype=datatype_of(array), array=np.asarray(array))


def _answer(item: Queued[_Work], reply: Reply) -> None:
    if not item.payload.future.done():
        item.payload.future.set_result(reply)


def _dropped_reply(drop: Dropped[_Work]) -> Reply:
    return Reply(call_id=drop.item.payload.call.call_id, error=drop.error())


def _answer_all(batch: tuple[Queued[_Work], ...], replies: list[Reply]) -> None:
    for item, reply in zip(batch, replies, strict=True):
        _answer(item, reply)
