"""Calls of several threads put into one batch, by the queue that decides in Squadron's replicas."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Condition, Thread

from pydantic import ValidationError

from cluster.client.inputs import apart, num_rows, shape_key, together
from cluster.config.variant import BatchingConfig
from cluster.errors import ConfigError, EngineFailed, SquadronError
from cluster.scheduling.decision import Queued, Run, Wait
from cluster.scheduling.scheduler import Scheduler
from cluster.tensors import Array

Infer = Callable[[Mapping[str, Array], tuple[str, ...]], dict[str, Array]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Call:
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    answer: Future[dict[str, Array]]


def batching_config(
    max_batch_size: int, max_delay_ms: float, preferred_batch_sizes: Sequence[int]
) -> BatchingConfig:
    """Raises: ConfigError naming the key and what is allowed."""
    try:
        return BatchingConfig(
            max_batch_size=max_batch_size,
            max_queue_delay_us=round(1000 * max_delay_ms),
            preferred_batch_sizes=tuple(preferred_batch_sizes),
            separate_shapes=True,
        )
    except (ValidationError, TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise ConfigError(f"max_delay_ms is {max_delay_ms!r}; allowed: a number") from None
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "preferred_batch_sizes"
        raise ConfigError(
            f"enable_dynamic_batching: {where}: {first['msg']}, got {first['input']!r}", key=where
        ) from None


class DynamicBatches:
    """A thread runs `infer`; callers wait for their rows. A call that makes its batch fail fails
    alone: the others are run again without it."""

    def __init__(self, infer: Infer, config: BatchingConfig, *, is_batched: bool) -> None:
        self.config = config
        self._infer = infer
        self._is_batched = is_batched
        self._scheduler: Scheduler[_Call] = Scheduler(config, is_batched=is_batched)
        self._changed = Condition()
        self._is_closed = False
        self._num_batches = 0
        self._thread = Thread(target=self._run, name="dynamic-batching", daemon=True)
        self._thread.start()

    @property
    def num_batches(self) -> int:
        """Batches computed so far."""
        return self._num_batches

    def infer(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        """Raises: Overloaded when too many calls wait, and what `infer` raises."""
        call = _Call(inputs=inputs, outputs=outputs, answer=Future())
        with self._changed:
            if self._is_closed:
                raise EngineFailed("the model was unloaded")
            self._scheduler.push(
                Queued(
                    payload=call,
                    rows=num_rows(inputs, is_batched=self._is_batched),
                    arrived_s=time.monotonic(),
                    shape_key=(shape_key(inputs), outputs),
                )
            )
            self._changed.notify()
        return call.answer.result()

    def close(self) -> None:
        """What waits is computed first."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (decision := self._next()) is not None:
            calls = [item.payload for item in decision.batch]
            is_whole = self._compute(calls)
            with self._changed:
                self._num_batches += 1
                self._scheduler.finished(time.monotonic(), is_whole=is_whole)

    def _next(self) -> Run[_Call] | None:
        """The next batch; None when closed and nothing waits."""
        with self._changed:
            while True:
                now_s = time.monotonic()
                decision = self._scheduler.decide(now_s)
                for dropped in decision.dropped:
                    dropped.item.payload.answer.set_exception(dropped.error())
                if isinstance(decision, Run):
                    return decision
                if isinstance(decision, Wait):
                    self._changed.wait(max(0.0, decision.until_s - now_s))
                elif self._is_closed:
                    return None
                else:
                    self._changed.wait()

    def _compute(self, calls: Sequence[_Call]) -> bool:
        try:
            inputs = together([call.inputs for call in calls])
            answer = self._infer(inputs, calls[0].outputs)
        except Exception as error:
            if len(calls) == 1:
                calls[0].answer.set_exception(_told(error))
            else:
                for call in calls:
                    self._compute([call])
            return False
        if len(calls) == 1:
            calls[0].answer.set_result(answer)
            return True
        rows = [num_rows(call.inputs, is_batched=self._is_batched) for call in calls]
        for call, part in zip(calls, apart(answer, rows), strict=True):
            call.answer.set_result(part)
        return True


def _told(error: Exception) -> Exception:
    if isinstance(error, SquadronError):
        return error
    return EngineFailed(f"the call failed: {type(error).__name__}: {error}")
