"""The shards of one replica as one engine: they start, join, fail and stop as one."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

from actors.sharding.channels.message import Message
from actors.sharding.control import Beat, Control, Edge
from actors.sharding.gathered import Gathered
from actors.sharding.group_start import GroupSetup, start_group
from actors.sharding.shard_worker import QUEUE_DEPTH
from actors.sharding.starters import WorkerStarter
from actors.sharding.watch import GroupWatch
from actors.tracing.engine_span import ENGINE_SPAN
from cluster.engines.engine import EngineFacts
from cluster.engines.sharded.generate import generate
from cluster.engines.sharded.part import Step, Values
from cluster.engines.sharded.stages import let_go
from cluster.engines.warm_up import run_zeros
from cluster.errors import EngineFailed, InvalidRequest, ShardLost, SquadronError
from cluster.processing.signature_check import check_inputs, check_outputs
from cluster.requests import Parameter
from cluster.tensors import NUMPY_DTYPES, Array, Signature

logger = logging.getLogger("squadron.shard")

RETRY_AFTER_S = 5.0
"""A group that was lost is replaced by another one of the same shape; a small one in seconds."""
TELL_S = 30.0


class ShardGroup:
    """An `Engine` whose work is done by other processes.

    `on_lost` is called once, from the thread that noticed: a shard died, was stopped, or did not
    answer in time. Whoever waits for an answer then gets ShardLost.
    """

    def __init__(
        self,
        setup: GroupSetup,
        starter: WorkerStarter,
        *,
        on_lost: Callable[[str], None] = lambda reason: None,
        watch: GroupWatch | None = None,
    ) -> None:
        self._setup = setup
        self._starter = starter
        self._on_lost = on_lost
        self._watch = watch
        self._signature = setup.card.raw_signature()
        self._lost = ""
        self._is_told = threading.Event()
        self._is_closed = False
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._facts: EngineFacts | None = None
        self._peaks: dict[int, int] = {}
        self._ended: list[str] = []
        self._artefacts = setup.artefacts

    @property
    def signature(self) -> Signature:
        return self._signature

    @property
    def facts(self) -> EngineFacts:
        assert self._facts is not None, "facts are known after load"
        return self._facts

    @property
    def pids(self) -> tuple[int, ...]:
        """The shards' processes by rank."""
        return self._started.pids

    @property
    def peak_bytes(self) -> tuple[int, ...]:
        """The greatest resident size of each shard's process so far, by rank."""
        return tuple(self._peaks[rank] for rank in range(len(self._started.pids)))

    @property
    def ready(self) -> tuple[object, ...]:
        """What each shard said of itself when it had loaded, by rank (`control.Ready`)."""
        return self._started.ready

    @property
    def edges(self) -> tuple[Edge, ...]:
        """By which transport activations go from whom to whom."""
        return self._started.edges

    def load(self) -> None:
        try:
            self._started = start_group(self._setup, self._starter)
        except BaseException:
            self._let_go()
            raise
        devices = dict.fromkeys(shard.device for shard in self._setup.layout.shards)
        self._facts = EngineFacts(
            engine="sharded",
            provider=f"{len(self._setup.layout.shards)} shards",
            device="+".join(devices),
            precision=self._setup.card.precision,
            threads=self._setup.threads,
            weight_bytes=sum(ready.weight_bytes for ready in self._started.ready),
        )
        self._peaks = dict(enumerate(ready.peak_bytes for ready in self._started.ready))
        if self._watch is not None:
            self._watch.started(self._started.ready)
        threading.Thread(target=self._monitor, name="shard-monitor", daemon=True).start()

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        if self._setup.card.decoupled:
            return
        is_batched = self._setup.card.batched
        run_zeros(self.infer, self._signature, batch_sizes, is_batched=is_batched)

    def infer(self, inputs: dict[str, Array]) -> dict[str, Array]:
        is_batched = self._setup.card.batched
        rows = check_inputs(inputs, self._signature, is_batched=is_batched)
        self._check_ids(inputs)
        given = {spec.name: inputs[spec.name] for spec in self._signature.inputs}
        answer = self._run(
            self._micro_batches(given, rows), Step(ends=self._take_ended(), trace=ENGINE_SPAN.get())
        )
        outputs = {
            spec.name: answer[spec.name].astype(NUMPY_DTYPES[spec.datatype], copy=False)
            for spec in self._signature.outputs
            if spec.name in answer
        }
        check_outputs(outputs, self._signature.outputs, rows=rows, is_batched=is_batched)
        return outputs

    def stream(
        self, inputs: dict[str, Array], parameters: dict[str, Parameter]
    ) -> Iterator[dict[str, Array]]:
        """A token a response; the key-value cache stays with the shards until the stream ends."""
        sequence = f"s{next(self._numbers)}"

        def logits(ids: Array) -> Array:
            # First: what is refused here takes no ended caches with it that no shard hears of.
            self._check_ids({"input_ids": ids})
            step = Step(
                sequence=sequence,
                is_last_only=True,
                ends=self._take_ended(),
                trace=ENGINE_SPAN.get(),
            )
            found: Array = self._run([{"input_ids": ids}], step)["logits"]
            return found

        def end() -> None:
            self._ended.append(sequence)

        limit = self._setup.max_tokens
        if self._setup.placement.kv_cache == "static":
            limit = min(limit or 2**31, self._setup.placement.kv_cache_tokens)
        return generate(logits, inputs, parameters, max_positions=limit, end=end)

    def close(self) -> None:
        """The shards end with their control connections; what does not is killed."""
        with self._lock:
            if self._watch is not None and not self._is_closed:
                self._watch.ended(is_lost=False)
            self._is_closed = True
            self._end_channels()
        self._starter.stop()
        self._let_go()

    def _let_go(self) -> None:
        """Of the stages' files, once. A group that is lost keeps them for the one after it."""
        artefacts, self._artefacts = self._artefacts, ()
        let_go(artefacts)

    def _run(self, batches: list[Values], step: Step) -> Values:
        """The micro-batches' answers as one, at most as many in flight as the layout says."""
        answers = Gathered(tuple(_rows(each) for each in batches) if len(batches) > 1 else ())
        errors: list[SquadronError] = []
        limit = min(self._setup.layout.micro_batches, QUEUE_DEPTH)
        sent = done = 0
        try:
            while done < len(batches):
                if sent < len(batches) and sent - done < limit:
                    message = Message(number=sent, step=step, values=batches[sent])
                    for target in self._started.targets:
                        target.send(message)
                    sent += 1
                    continue
                answer = self._started.source.receive()
                if answer.number != done:
                    raise ShardLost(f"answer {answer.number} came out of turn")
                if answer.error is not None:
                    errors.append(answer.error)
                elif not errors:
                    try:
                        answers.put(done, answer.values)
                    except EngineFailed as error:
                        errors.append(error)
                answer.done()
                done += 1
        except ShardLost as error:
            self._lose(self._lost or error.message)
            if not self._is_closed:
                # Who is told of the loss ends the process, and the caller's request is run
                # elsewhere: an answer that goes out before that is final.
                self._is_told.wait(TELL_S)
            raise ShardLost(
                f"the sharded replica is lost: {self._lost}", retry_after_s=RETRY_AFTER_S
            ) from None
        if errors:
            raise errors[0]
        return answers.values()

    def _micro_batches(self, given: Values, rows: int) -> list[Values]:
        parts = min(self._setup.layout.micro_batches, rows) if self._setup.card.batched else 1
        if parts <= 1:
            return [given]
        cut = {name: np.array_split(array, parts) for name, array in given.items()}
        return [{name: cut[name][index] for name in cut} for index in range(parts)]

    def _check_ids(self, inputs: dict[str, Array]) -> None:
        """Slices of a vocabulary cannot tell an unknown token from another slice's: asked here."""
        ids = inputs.get("input_ids")
        vocabulary = self._setup.vocabulary_size
        if ids is None or not vocabulary or not ids.size:
            return
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocabulary:
            wrong = low if low < 0 else high
            raise InvalidRequest(
                f"input_ids holds {wrong}; allowed: 0 to {vocabulary - 1}", key="input_ids"
            )
        longest = self._setup.max_tokens
        if longest and ids.shape[-1] > longest:
            raise InvalidRequest(
                f"input_ids has {ids.shape[-1]} positions; the model takes at most {longest}",
                key="input_ids",
            )

    def _take_ended(self) -> tuple[str, ...]:
        ended, self._ended = tuple(self._ended), []
        return ended

    def _monitor(self) -> None:
        """Hears every shard's beats: its end is noticed at once, its silence after a while."""
        timeout_s = self._setup.placement.heartbeat_timeout_s
        heard_s = dict.fromkeys(range(len(self._started.controls)), time.monotonic())
        with selectors.DefaultSelector() as selector:
            with self._lock:
                # A group that was closed at once has no connections any more.
                for rank, control in enumerate(() if self._is_closed else self._started.controls):
                    selector.register(control.socket, selectors.EVENT_READ, (rank, control))
            while not self._lost and not self._is_closed:
                for key, _ in selector.select(timeout_s / 10):
                    rank, control = key.data
                    if not self._hear(rank, control):
                        return
                    heard_s[rank] = time.monotonic()
                now_s = time.monotonic()
                for rank, last_s in heard_s.items():
                    if now_s - last_s > timeout_s:
                        self._lose(f"shard {rank} has said nothing for {timeout_s:g} s")
                        return

    def _hear(self, rank: int, control: Control) -> bool:
        try:
            beat: Beat = control.receive(Beat)
        except (SquadronError, OSError, ValueError):
            self._lose(f"shard {rank} (process {self._started.pids[rank]}) has ended")
            return False
        self._peaks[rank] = max(self._peaks[rank], beat.peak_bytes)
        if self._watch is not None:
            self._watch.heard(rank, beat)
        return True

    def _lose(self, reason: str) -> None:
        with self._lock:
            if self._lost or self._is_closed:
                return
            self._lost = reason
            if self._watch is not None:
                self._watch.ended(is_lost=True)
        logger.error("%s: %s; the group stops", self._setup.title, reason)
        for rank, pid in enumerate(self._started.pids):
            if self._starter.is_here(rank):
                # Also a process that is stopped ends by this.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._starter.stop()
        self._end_channels()
        self._on_lost(reason)
        self._is_told.set()

    def check(self) -> None:
        """Raises: EngineFailed when a shard is lost."""
        if self._lost:
            raise EngineFailed(f"the sharded replica is lost: {self._lost}")

    def _end_channels(self) -> None:
        started = getattr(self, "_started", None)
        if started is None:
            return
        for channel in (*started.targets, started.source):
            channel.close()
        for control in started.controls:
            control.socket.close()


def _rows(values: Values) -> int:
    return len(next(iter(values.values())))
