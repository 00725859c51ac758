"""The replica of a decoupled model: one request, any number of responses.

Every stream is advanced in the engine's one thread, a response at a time and in turn with the
others; it is advanced when somebody waits for the next response, never ahead of its reader.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

from actors.batching.tally import BatchTally
from actors.delivery.withdrawals import Withdrawals
from actors.logs.failures import Failures
from actors.model_replica import STALLED_S, ReplicaSetup, loaded_engine
from actors.node_folder import metrics_folder
from actors.tracing.engine_span import ENGINE_SPAN
from actors.tracing.opened import close_spans, span_of_stream, spans_of
from cluster.engines.engine import Engine, StreamingEngine
from cluster.errors import (
    ConfigError,
    DeadlineExceeded,
    EngineFailed,
    Overloaded,
    SquadronError,
    Unsupported,
)
from cluster.observability.metrics import make_metrics
from cluster.protocols.envelope import Call, Reply, decode_calls, encode_replies
from cluster.requests import Parameter
from cluster.tensors import Array, Tensor, datatype_of

Outputs = dict[str, Array]


class StreamReplica:
    """Serve constructs one a replica; ready when the engine is warm."""

    def __init__(
        self,
        setup: ReplicaSetup,
        *,
        metrics_at: Path | None = None,
        make_ready: Callable[[ReplicaSetup], Engine] | None = None,
    ) -> None:
        """See `ModelReplica`."""
        self._setup = setup
        metrics = make_metrics(metrics_at or metrics_folder())
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._engine = self._computing.submit(make_ready or _ready_engine, setup).result()
        if not isinstance(self._engine, StreamingEngine):
            raise ConfigError(f"engine {setup.engine} cannot run a decoupled model", key="engine")
        self._streaming: StreamingEngine = self._engine
        version = setup.metric_labels
        self.tally = BatchTally(metrics, *version)
        self._spans = spans_of(setup.tracing, setup.variant)
        self._failures = Failures(setup.variant)
        self._open_gauge = metrics.pending.labels(*version)
        self._num_open = 0
        self._busy_since_s: float | None = None

    async def infer(
        self, message: bytes | memoryview, withdrawals: Withdrawals | None = None
    ) -> bytes:
        """Refuses: a door asks a decoupled model for a stream."""
        error = Unsupported(f"{self._setup.variant} is decoupled: it answers streams only")
        calls = decode_calls(message)
        return encode_replies(Reply(call_id=call.call_id, error=error) for call in calls)

    async def stream(self, message: bytes) -> AsyncGenerator[bytes, None]:
        """An envelope of one call in, envelopes of one response each out; an error is the last.

        Closing it, or cancelling who reads it, ends the model's work on it.
        """
        (call,) = decode_calls(message)
        limit = self._setup.batching.max_queue_size
        if self._num_open >= limit:
            text = f"Exceeds maximum queue size ({limit})"
            error = Overloaded(text, retry_after_s=1)
            yield encode_replies([Reply(call_id=call.call_id, error=error)])
            return
        self._count_open(1)
        try:
            with span_of_stream(self._spans, call) as trace:
                async with aclosing(self._replies(call, trace)) as replies:
                    async for reply in replies:
                        yield encode_replies([reply])
        finally:
            self._count_open(-1)

    def check_health(self) -> None:
        """Serve asks every health period. Raises: EngineFailed when this replica cannot answer."""
        busy_since_s = self._busy_since_s
        if busy_since_s is not None and time.monotonic() - busy_since_s > STALLED_S:
            raise EngineFailed(f"{self._setup.variant}: one step has run for over {STALLED_S} s")

    async def close(self) -> None:
        """After the last request: free the engine."""
        self._computing.submit(self._engine.close)
        self._computing.shutdown(wait=False)
        await close_spans(self._spans)

    async def _replies(self, call: Call, trace: str) -> AsyncGenerator[Reply, None]:
        loop = asyncio.get_running_loop()
        deadline_s = time.monotonic() + call.left_s
        inputs = {tensor.name: tensor.array for tensor in call.inputs}
        steps = self._begun(inputs, call.parameters)
        compute_s = 0.0
        try:
            while True:
                if time.monotonic() >= deadline_s:
                    text = "Request timeout expired: the deadline passed while it was streamed"
                    yield Reply(call_id=call.call_id, error=DeadlineExceeded(text))
                    return
                # A stream whose caller has gone may be advanced once more, by the step under way.
                outcome, step_s = await loop.run_in_executor(
                    self._computing, self._step, steps, trace
                )
                compute_s += step_s
                match outcome:
                    case None:
                        return
                    case SquadronError() as error:
                        self._failures.tell(error, call)
                        yield Reply(call_id=call.call_id, error=error)
                        return
                    case outputs:
                        yield _reply(call, outputs)
        finally:
            # In the engine's thread, after the step that is under way there; nobody waits for it.
            self._computing.submit(self._end, steps)
            self.tally.add(rows=call.rows, num_requests=1, queue_s=0.0, compute_s=compute_s)

    def _begun(self, inputs: Outputs, parameters: dict[str, Parameter]) -> Iterator[Outputs]:
        # The engine is first asked inside a step: what it refuses before its first response is an
        # answer like any other, and not the end of the connection.
        yield from self._streaming.stream(inputs, parameters)

    def _step(
        self, steps: Iterator[Outputs], trace: str
    ) -> tuple[Outputs | SquadronError | None, float]:
        """In the engine's thread: the next response, the error that ended the stream or its end."""
        began_s = self._busy_since_s = time.monotonic()
        token = ENGINE_SPAN.set(trace)
        try:
            found: Outputs | SquadronError | None = next(steps, None)
        except SquadronError as error:
            found = error
        except Exception as error:
            # A bug of ours or of the runtime's: its caller is told by name only.
            found = EngineFailed(f"the engine failed: {type(error).__name__}")
            found.__cause__ = error
        finally:
            ENGINE_SPAN.reset(token)
            self._busy_since_s = None
        return found, time.monotonic() - began_s

    def _end(self, steps: Iterator[Outputs]) -> None:
        close = getattr(steps, "close", None)
        if close is not None:
            close()

    def _count_open(self, change: int) -> None:
        self._num_open += change
        self._open_gauge.set(self._num_open)


def _ready_engine(setup: ReplicaSetup) -> Engine:
    engine = loaded_engine(setup)
    engine.warm_up((1,))
    return engine


def _reply(call: Call, outputs: Outputs) -> Reply:
    wanted = call.wanted or tuple(outputs)
    tensors = tuple(
        Tensor(name=name, datatype=datatype_of(outputs[name]), array=outputs[name])
        for name in wanted
        if name in outputs
    )
    return Reply(call_id=call.call_id, outputs=tensors)
