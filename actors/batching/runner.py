"""One batch through one engine: requests in, a reply for each of them out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from actors.batching.engine_run import EngineRun
from actors.batching.tally import BatchTally
from actors.logs.failures import Failures
from cluster.errors import EngineFailed, SquadronError
from cluster.processing.padding import Padding
from cluster.processing.pipeline import Pipeline, Prepared
from cluster.protocols.envelope import Call, Reply
from cluster.tensors import Array, Datatype, Tensor, datatype_of

_CPU_CLOCK_CALLS = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """A call in the queue: prepared inputs, and where its reply goes."""

    call: Call
    prepared: Prepared
    arrived_s: float
    future: asyncio.Future[Reply]


class BatchRunner:
    """Called from one thread at a time.

    `cpu_s`: what the last batch took of its thread, without what its replies took.
    """

    def __init__(
        self,
        engine: EngineRun,
        pipeline: Pipeline,
        tally: BatchTally,
        *,
        variant: str,
        is_batched: bool,
    ) -> None:
        self.cpu_s = 0.0
        self._engine_ended_s = 0.0
        self._engine = engine
        self._pipeline = pipeline
        self._tally = tally
        self._failures = Failures(variant)
        self._is_batched = is_batched
        self._public = tuple(spec.name for spec in pipeline.signature.outputs)
        self._datatypes: dict[str, tuple[object, Datatype]] = {}

    def run(self, batch: Sequence[Work]) -> list[Reply]:
        """In the engine's thread. Never raises: what fails with others is run by itself, and its
        own error is its reply."""
        started_s = time.monotonic()
        calls = [work.call for work in batch]
        prepared = [work.prepared for work in batch]
        merged_s = started_s

        def merge() -> dict[str, Array]:
            nonlocal merged_s
            merged = self._merged(prepared)
            merged_s = time.monotonic()
            return merged

        try:
            outputs = self._compute(merge, calls, clock=time.thread_time, is_timed=True)
        except Exception as error:
            if len(batch) > 1:
                # One bad request must not take its companions with it: run each by itself.
                return [reply for work in batch for reply in self.run((work,))]
            self._failures.tell(error, calls[0])
            return [Reply(call_id=calls[0].call_id, error=_as_error(error))]
        ended_s = time.monotonic()
        queued_s = [started_s - work.arrived_s for work in batch]
        input_s, output_s = merged_s - started_s, ended_s - self._engine_ended_s
        self._tally.spent(merge=input_s, engine=self._engine_ended_s - merged_s, finish=output_s)
        replies = self._replies(
            calls, outputs, queued_s, ended_s - started_s, input_s=input_s, output_s=output_s
        )
        if self._pipeline.padding is not None:
            _cut(self._pipeline.padding, replies, [part.length for part in prepared])
        return replies

    def run_here(self, calls: Sequence[Call]) -> list[Reply] | None:
        """In the loop, for a plain model. None for calls that cannot be one batch as they are."""
        started_s = time.monotonic()
        try:
            parts = [{tensor.name: tensor.array for tensor in call.inputs} for call in calls]
            merged = self._engine.join(parts)
            # The thread's own clock leaves out other processes' turns, and costs two calls to the
            # kernel (7 µs each): too much for a few requests.
            clock = time.thread_time if len(calls) >= _CPU_CLOCK_CALLS else time.perf_counter
            outputs = self._compute(lambda: merged, calls, clock=clock)
        except Exception:
            # Whose fault it is shows when each is run by itself, which the queue does.
            return None
        return self._replies(calls, outputs, None, time.monotonic() - started_s)

    def _merged(self, prepared: Sequence[Prepared]) -> dict[str, Array]:
        if self._is_batched and self._pipeline.is_plain:
            return self._engine.join([part.arrays for part in prepared])
        return self._pipeline.merge(prepared)

    def _compute(
        self,
        merge: Callable[[], dict[str, Array]],
        calls: Sequence[Call],
        *,
        clock: Callable[[], float],
        is_timed: bool = False,
    ) -> dict[str, Array]:
        """`is_timed`: note when the engine was done; in the loop that would cost too much."""
        began_s = clock()
        merged = merge()
        wanted = {name for call in calls for name in call.wanted or self._public}
        outputs = self._engine.infer(merged, sum([call.rows for call in calls]))
        if is_timed:
            self._engine_ended_s = time.monotonic()
        found = self._pipeline.finish(outputs, merged, wanted)
        self.cpu_s = clock() - began_s
        return found

    def _replies(
        self,
        calls: Sequence[Call],
        outputs: dict[str, Array],
        queued_s: list[float] | None,
        compute_s: float,
        *,
        input_s: float = 0.0,
        output_s: float = 0.0,
    ) -> list[Reply]:
        """Each request's rows of the outputs, as views."""
        rows = sum([call.rows for call in calls])
        total_s = sum(queued_s) if queued_s is not None else 0.0
        self._tally.add(
            rows=rows,
            num_requests=len(calls),
            queue_s=total_s,
            compute_s=compute_s,
            input_s=input_s,
            output_s=output_s,
        )
        named = {name: (array, self._datatype(name, array)) for name, array in outputs.items()}
        replies: list[Reply] = []
        start = 0
        for index, call in enumerate(calls):
            stop = start + call.rows
            tensors = []
            for name in call.wanted or self._public:
                array, datatype = named[name]
                if self._is_batched and stop - start != rows:
                    array = array[start:stop]
                tensors.append(Tensor(name=name, datatype=datatype, array=array))
            replies.append(
                Reply(
                    call_id=call.call_id,
                    outputs=tuple(tensors),
                    queue_s=queued_s[index] if queued_s is not None else 0.0,
                    compute_s=compute_s,
                    batch_rows=rows,
                )
            )
            start = stop
        return replies

    def _datatype(self, name: str, array: Array) -> Datatype:
        known = self._datatypes.get(name)
        if known is None or known[0] != array.dtype:
            known = self._datatypes[name] = array.dtype, datatype_of(array)
        return known[1]


def _cut(padding: Padding, replies: Sequence[Reply], lengths: Sequence[int]) -> None:
    longest = max(lengths)
    for reply, length in zip(replies, lengths, strict=True):
        reply.outputs = tuple(
            replace(each, array=padding.cut(each.name, each.array, length=length, longest=longest))
            for each in reply.outputs
        )


def _as_error(error: Exception) -> SquadronError:
    """What the caller may see. Engines raise ours; anything else is a bug, told by name only."""
    if isinstance(error, SquadronError):
        return error
    return EngineFailed(f"the engine failed: {type(error).__name__}")
