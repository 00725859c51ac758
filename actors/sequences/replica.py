"""The replica of a model whose requests belong to sequences.

The loop decides (`cluster.scheduling.sequences`), one thread computes. Control tensors are filled
and state is carried here; both live as long as their sequence, and no longer than this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from actors.batching.tally import BatchTally
from actors.delivery.withdrawals import Withdrawals
from actors.logs.failures import Failures
from actors.model_replica import STALLED_S, ReplicaSetup, loaded_engine
from actors.node_folder import metrics_folder
from actors.tracing.opened import close_spans, spans_of
from cluster.engines.engine import Engine
from cluster.errors import ConfigError, EngineFailed, InvalidRequest, SquadronError
from cluster.observability.metrics import make_metrics
from cluster.processing.sequence_tensors import SequenceRow, SequenceTensors, State
from cluster.processing.signature_check import check_inputs
from cluster.protocols.envelope import Call, Reply, decode_calls, encode_replies
from cluster.requests import SequenceStep
from cluster.scheduling.decision import Dropped, Idle, Queued, Wait
from cluster.scheduling.sequences import Member, RunSequences, SequenceQueue, sequence_policy
from cluster.tensors import Array, Tensor, datatype_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Work:
    call: Call
    arrived_s: float
    future: asyncio.Future[Reply]


class SequenceReplica:
    """Serve constructs one a replica; ready when the engine is warm."""

    def __init__(
        self,
        setup: ReplicaSetup,
        *,
        metrics_at: Path | None = None,
        make_ready: Callable[[ReplicaSetup], Engine] | None = None,
    ) -> None:
        """See `ModelReplica`."""
        if setup.sequences is None:
            raise ConfigError(f"{setup.variant} has no section `sequences`", key="sequences")
        card = setup.card
        self._setup = setup
        self._is_batched = card.batched
        self._tensors = SequenceTensors(
            setup.sequences, card.raw_signature(), is_batched=card.batched
        )
        policy = sequence_policy(setup.sequences, setup.batching, is_batched=card.batched)
        self._queue: SequenceQueue[_Work] = SequenceQueue(policy)
        self._states: dict[int, State] = {}
        metrics = make_metrics(metrics_at or metrics_folder())
        self.tally = BatchTally(metrics, *setup.metric_labels)
        self._pending = metrics.pending.labels(*setup.metric_labels)
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._engine = self._computing.submit(make_ready or _ready_engine, setup).result()
        self._spans = spans_of(setup.tracing, setup.variant)
        self._failures = Failures(setup.variant)
        self._wake = asyncio.Event()
        self._busy_since_s: float | None = None
        self._loop_task: asyncio.Task[None] | None = None

    async def infer(
        self, message: bytes | memoryview, withdrawals: Withdrawals | None = None
    ) -> bytes:
        """An envelope of calls in, an envelope of replies out; each call has its own outcome.

        A call that is withdrawn is run all the same: the sequence's next one builds on it.
        """
        if self._loop_task is None:
            self._loop_task = asyncio.get_running_loop().create_task(self._run_batches())
        replies: list[Reply] = []
        items: list[Queued[_Work]] = []
        for call in decode_calls(message):
            try:
                items.append(self._enqueue(call))
            except SquadronError as error:
                replies.append(Reply(call_id=call.call_id, error=error))
        self._wake.set()
        try:
            replies += [await item.payload.future for item in items]
        except asyncio.CancelledError:
            for item in items:
                self._queue.withdraw(item)
            self._wake.set()
            raise
        return encode_replies(replies)

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
        self._computing.submit(self._engine.close)
        self._computing.shutdown(wait=False)
        await close_spans(self._spans)

    def _enqueue(self, call: Call) -> Queued[_Work]:
        """Raises: InvalidRequest, Overloaded."""
        step = self._checked_step(call)
        inputs = {tensor.name: tensor.array for tensor in call.inputs}
        rows = check_inputs(inputs, self._tensors.signature, is_batched=self._is_batched)
        if rows != 1:
            raise InvalidRequest(
                f"inference request to model '{self._setup.variant}' must specify batch-size 1 due "
                "to requirements of sequence batcher"
            )
        now_s = time.monotonic()
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        item = Queued(
            payload=_Work(call=call, arrived_s=now_s, future=future),
            rows=1,
            arrived_s=now_s,
            deadline_s=now_s + call.left_s,
            shape_key=tuple(array.shape for array in inputs.values()),
        )
        self._queue.push(item, step, now_s)
        return item

    def _checked_step(self, call: Call) -> SequenceStep:
        if call.sequence is None:
            raise InvalidRequest(
                f"inference request to model '{self._setup.variant}' must specify a non-zero or "
                "non-empty correlation ID"
            )
        self._tensors.check_id(call.sequence)
        return call.sequence

    async def _run_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            decision = self._queue.decide(time.monotonic())
            for drop in decision.dropped:
                _settle(drop.item.payload, _dropped(drop))
            self._forget_ended()
            self._pending.set(len(self._queue))
            match decision:
                case Idle():
                    await self._wake.wait()
                case Wait(until_s=until_s):
                    timer = loop.call_later(max(0.0, until_s - time.monotonic()), self._wake.set)
                    await self._wake.wait()
                    timer.cancel()
                case RunSequences() as run:
                    self._busy_since_s = time.monotonic()
                    replies = await loop.run_in_executor(self._computing, self._compute, run)
                    self._busy_since_s = None
                    self._queue.finished(time.monotonic())
                    for member, reply in zip(run.members, replies, strict=True):
                        _settle(member.item.payload, reply)

    def _compute(self, run: RunSequences[_Work]) -> list[Reply]:
        """In the engine's thread. Never raises: an error is the reply of each member.

        Not run again one by one, as other batches are: the model may have kept state of its own
        from those that it came to before it failed.
        """
        started_s = time.monotonic()
        rows: list[SequenceRow | None] = [None] * run.num_rows
        for member in run.members:
            rows[member.row] = self._row_of(member)
        try:
            outputs = self._infer(run, self._tensors.merge(rows))
            replies = [self._reply(member, outputs, started_s) for member in run.members]
        except SquadronError as error:
            self._failures.tell(error, run.members[0].item.payload.call)
            return [_failed(member, error) for member in run.members]
        except Exception as error:
            # A bug of ours or of the runtime's: its callers are told by name only.
            self._failures.tell(error, run.members[0].item.payload.call)
            failed = EngineFailed(f"the engine failed: {type(error).__name__}")
            return [_failed(member, failed) for member in run.members]
        for member in run.members:
            if self._setup.sequences is not None and self._setup.sequences.state:
                self._states[member.number] = self._tensors.new_state(outputs, member.row)
        self.tally.add(
            rows=len(run.members),
            num_requests=len(run.members),
            queue_s=sum(started_s - member.item.arrived_s for member in run.members),
            compute_s=time.monotonic() - started_s,
        )
        return replies

    def _infer(self, run: RunSequences[_Work], inputs: dict[str, Array]) -> dict[str, Array]:
        if self._spans is None:
            return self._engine.infer(inputs)
        items = [member.item for member in run.members]
        self._spans.taken([(item.payload.call, item.arrived_s) for item in items])
        calls = [item.payload.call for item in items]
        with self._spans.batch(calls), self._spans.engine(run.num_rows):
            return self._engine.infer(inputs)

    def _row_of(self, member: Member[_Work]) -> SequenceRow:
        inputs = {tensor.name: tensor.array for tensor in member.item.payload.call.inputs}
        state = self._states.get(member.number)
        return SequenceRow(inputs=inputs, step=member.step, state=state)

    def _reply(self, member: Member[_Work], outputs: State, started_s: float) -> Reply:
        call = member.item.payload.call
        found = self._tensors.public_outputs(outputs, member.row)
        names = call.wanted or tuple(found)
        return Reply(
            call_id=call.call_id,
            outputs=tuple(
                Tensor(name=name, datatype=datatype_of(found[name]), array=found[name])
                for name in names
            ),
            queue_s=started_s - member.item.arrived_s,
            compute_s=time.monotonic() - started_s,
        )

    def _forget_ended(self) -> None:
        for number in self._queue.take_ended():
            self._states.pop(number, None)


def _ready_engine(setup: ReplicaSetup) -> Engine:
    engine = loaded_engine(setup)
    engine.warm_up((1, setup.batching.max_batch_size))
    return engine


def _settle(work: _Work, reply: Reply) -> None:
    if not work.future.done():
        work.future.set_result(reply)


def _failed(member: Member[_Work], error: SquadronError) -> Reply:
    return Reply(call_id=member.item.payload.call.call_id, error=error)


def _dropped(drop: Dropped[_Work]) -> Reply:
    return Reply(call_id=drop.item.payload.call.call_id, error=drop.error())
