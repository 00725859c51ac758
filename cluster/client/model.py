"""A model in a caller's hands: the same methods whether it runs here or on a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from cluster.client import tuning
from cluster.client.backend import Backend, Generates
from cluster.client.batch_stream import BatchStream
from cluster.client.batching import DynamicBatches, batching_config
from cluster.client.inputs import apart, groups, named_inputs, num_rows, together
from cluster.client.measure.benchmark import best_size, run_benchmark
from cluster.client.values import BatchFigure, Setting
from cluster.errors import EngineFailed, InvalidRequest, Unsupported
from cluster.processing.signature_check import check_inputs
from cluster.tensors import Array, Signature

if TYPE_CHECKING:
    from cluster.client.workplace import Workplace
    from cluster.optimization.elsewhere.edge import EdgeFile
    from cluster.optimization.search.report import OptimizeReport

DEFAULT_BATCH_SIZE = 32
OPTIMAL_OF = (1, 2, 4, 8, 16, 32)


class Watcher(Protocol):
    """Told of every call. `rows` of the call, `seconds` it took."""

    def saw(
        self, inputs: Mapping[str, Array], *, rows: int, seconds: float, is_error: bool
    ) -> None: ...


class Model:
    """Made by `Client.load_model`, `optimize` and `shard_model`. Safe to call from several threads.

    `report` is what the search found, for a model that `optimize` made; `source` what it was loaded
    from; `applied` what each option of `optimize` did (those that did nothing are in the report);
    `ort_file` and `edge_files` (by suffix) the files for phones of one optimised for them.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        source: object = None,
        example: Mapping[str, Array] | None = None,
        report: OptimizeReport | None = None,
        place: Workplace | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        self.backend = backend
        self.source = source
        self.example = example
        self.report = report
        self._place = place
        self.applied: Mapping[str, str] = {}
        self.ort_file: Path | None = None
        self.edge_files: dict[str, EdgeFile] = {}
        self._batch_size = batch_size
        self._batches: DynamicBatches | None = None
        self._watchers: tuple[Watcher, ...] = ()
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        return self.backend.name

    @property
    def is_remote(self) -> bool:
        return self.backend.is_remote

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def signature(self) -> Signature:
        """What `predict` takes and gives."""
        return self.backend.signature

    @property
    def batch_size(self) -> int:
        """Rows of a batch of `batch_predict`."""
        return self._batch_size

    def predict(
        self, inputs: Any = None, /, *, outputs: Sequence[str] = (), **named: Any
    ) -> dict[str, Array]:
        """The outputs by name: those asked for, or all that are answered unasked.

        `inputs`: a mapping of arrays, tensors or lists by name, or the one input's value; shapes
        are whole, the batch dimension included, but a text or a file's bytes alone is one row.
        Raises: InvalidRequest saying what the model takes.
        """
        given = named_inputs(inputs, named, self.signature)
        batches = self._batches
        infer = self.backend.infer if batches is None else batches.infer
        return self._timed(infer, given, tuple(outputs))

    def batch_predict(
        self, items: Sequence[Any], *, batch_size: int | None = None, outputs: Sequence[str] = ()
    ) -> list[dict[str, Array]]:
        """The answers to many inputs, each as `predict` takes it, in their order.

        Rows of equal shapes are computed together, at most `batch_size` (see `set_batch_size`) at
        once.
        """
        size = self._batch_size if batch_size is None else checked_size(batch_size)
        calls = [named_inputs(item, {}, self.signature) for item in items]
        found: list[dict[str, Array]] = [{} for _ in calls]
        is_batched = self.backend.is_batched
        for group in groups(calls, size, is_batched=is_batched):
            chosen = [calls[index] for index in group]
            answer = self._timed(self.backend.infer, together(chosen), tuple(outputs))
            if len(group) == 1:
                found[group[0]] = answer
                continue
            rows = [num_rows(call, is_batched=is_batched) for call in chosen]
            for index, part in zip(group, apart(answer, rows), strict=True):
                found[index] = part
        return found

    def generate(
        self,
        prompt: str | Sequence[int],
        max_length: int = 64,
        use_cache: bool = True,
        **parameters: str | int | float | bool,
    ) -> Any:
        """Text for a prompt of text, token ids for a prompt of ids: what was added to it.

        `max_length` counts new tokens. Without `use_cache` every token computes the whole text
        again (the same answer, slower). Further parameters: temperature, top_k, seed, stop_token.
        Raises: Unsupported for a model that does not generate.
        """
        backend = self.backend
        if not isinstance(backend, Generates):
            raise Unsupported(f"{self.name} generates nothing: it is no language model")
        wanted = {"max_tokens": max_length, **parameters}
        pieces = list(backend.generate(_prompt(prompt), wanted, use_cache=use_cache))
        if isinstance(prompt, str):
            return "".join(str(piece) for piece in pieces)
        return [int(piece) for piece in pieces]

    def enable_dynamic_batching(
        self,
        max_batch_size: int = 8,
        max_delay_ms: float = 5.0,
        preferred_batch_sizes: Sequence[int] = (),
    ) -> Setting:
        """Calls of `predict` that several threads make at once are computed together, by the queue
        that decides in Squadron's replicas. Of a server's model they are sent together.

        Raises: ConfigError for sizes that do not fit.
        """
        if not self.backend.is_batched:
            reason = f"{self.name} has no batch dimension"
            return Setting(name="dynamic_batching", acts=False, says=reason)
        config = batching_config(max_batch_size, max_delay_ms, preferred_batch_sizes)
        self._check_open()
        before = self._batches
        self._batches = DynamicBatches(self._infer, config, is_batched=True)
        if before is not None:
            before.close()
        return Setting(
            name="dynamic_batching",
            acts=True,
            says=f"up to {max_batch_size} rows, waiting at most {max_delay_ms:g} ms",
        )

    @property
    def num_dynamic_batches(self) -> int:
        """Batches that dynamic batching has computed."""
        return self._batches.num_batches if self._batches is not None else 0

    def create_batch_stream(
        self,
        max_batch_size: int = 8,
        timeout_ms: float = 10.0,
        on_results: Callable[[Sequence[dict[str, Array]]], None] | None = None,
    ) -> BatchStream[Any, dict[str, Array]]:
        """Items go in one by one (`process`), answers come out a batch at a time, in order: when
        `max_batch_size` are there or the first waited `timeout_ms`. An item that does not fit the
        model is refused by `process` (InvalidRequest) and costs no other its answer."""
        self._check_open()

        def check(item: Any) -> None:
            inputs = named_inputs(item, {}, self.signature)
            check_inputs(inputs, self.signature, is_batched=self.backend.is_batched)

        def compute(items: Sequence[Any]) -> list[dict[str, Array]]:
            return self.batch_predict(items, batch_size=max_batch_size)

        try:
            return BatchStream(
                compute,
                max_batch_size=max_batch_size,
                timeout_ms=timeout_ms,
                clock=time.monotonic,
                on_results=on_results,
                check=check,
            )
        except ValueError as error:
            raise InvalidRequest(str(error)) from None

    def benchmark(
        self, batch_sizes: Sequence[int] = (1,), *, data: Any = None, num_rounds: int = 10
    ) -> tuple[BatchFigure, ...]:
        """Latency and throughput of each size, measured in turns on `data` (one row) or on random
        inputs; of a server's model with the way there and back."""
        return run_benchmark(self.backend, batch_sizes, data=data, num_rounds=num_rounds)

    def get_optimal_batch_size(
        self,
        batch_sizes: Sequence[int] = OPTIMAL_OF,
        *,
        data: Any = None,
        max_latency_ms: float | None = None,
        num_rounds: int = 5,
    ) -> int:
        """Measured: the smallest size after which no larger one gives 5 % more items a second."""
        sizes = batch_sizes if self.backend.is_batched else (1,)
        figures = self.benchmark(sizes, data=data, num_rounds=num_rounds)
        return best_size(figures, max_latency_ms)

    def set_batch_size(self, batch_size: int) -> None:
        """Rows that `batch_predict` computes at once from now on."""
        self._batch_size = checked_size(batch_size)

    def is_optimized(self) -> bool:
        """Whether a recipe of the toolchain made what runs, here or on the server.

        Raises: Unsupported for an experiment or an ensemble of a server's.
        """
        return tuning.is_optimized(self.backend, self.report)

    def enable_gpu_acceleration(self, device: str = "cuda") -> Setting:
        """Load the model anew on a GPU; where there is none it stays, and the setting says so."""
        return self._replaced(*tuning.on_gpu(self.backend, device))

    def enable_efficient_attention(self) -> Setting:
        """Fused attention: in a torch language model scaled-dot-product attention, in an ONNX graph
        ONNX Runtime's fused operators."""
        cache = self._place.cache if self._place is not None else None
        return self._replaced(*tuning.efficient_attention(self.backend, cache))

    def enable_kv_cache(
        self, max_sequence_length: int = 2048, cache_strategy: str = "dynamic"
    ) -> Setting:
        """How `generate` keeps keys and values: `static` takes room for `max_sequence_length`
        tokens a text at once, `dynamic` grows. Texts may not become longer."""
        return tuning.kv_cache(self.backend, max_sequence_length, cache_strategy)

    def enable_memory_optimization(
        self,
        enable_cpu_offload: bool = False,
        enable_activation_checkpointing: bool = False,
        max_memory_mb: float | None = None,
    ) -> dict[str, Setting]:
        """Each option with what became of it. `max_memory_mb` bounds the weights of a torch
        language model that are resident at once; the other layers come in one ahead."""
        return tuning.memory(
            self.backend, enable_cpu_offload, enable_activation_checkpointing, max_memory_mb
        )

    @property
    def has_dynamic_batching(self) -> bool:
        return self._batches is not None

    @contextmanager
    def observed(self, inputs: Mapping[str, Array]) -> Iterator[None]:
        """What is done inside counts as one call for those who watch."""
        watchers = self._watchers
        started_s, is_error = time.perf_counter(), True
        try:
            yield
            is_error = False
        finally:
            seconds = time.perf_counter() - started_s
            rows = num_rows(inputs, is_batched=self.backend.is_batched)
            for watcher in watchers:
                watcher.saw(inputs, rows=rows, seconds=seconds, is_error=is_error)

    def watch(self, watcher: Watcher) -> None:
        """`watcher` is told of every call from now on."""
        self.unwatch(watcher)
        self._watchers = (*self._watchers, watcher)

    def unwatch(self, watcher: Watcher) -> None:
        self._watchers = tuple(each for each in self._watchers if each is not watcher)

    def close(self) -> None:
        """Free the engine; calls are refused afterwards. Closing twice does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._batches is not None:
            self._batches.close()
        self.backend.close()

    def unload(self) -> None:
        """The same as `close`."""
        self.close()

    def _infer(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        return self.backend.infer(inputs, outputs)

    def _timed(
        self,
        infer: Callable[[Mapping[str, Array], tuple[str, ...]], dict[str, Array]],
        inputs: dict[str, Array],
        outputs: tuple[str, ...],
    ) -> dict[str, Array]:
        if not self._watchers:
            return infer(inputs, outputs)
        with self.observed(inputs):
            return infer(inputs, outputs)

    def _replaced(self, backend: Backend | None, setting: Setting) -> Setting:
        if backend is not None:
            before, self.backend = self.backend, backend
            before.close()
        return setting

    def _check_open(self) -> None:
        if self._is_closed:
            raise EngineFailed(f"model {self.name!r} was unloaded")


def checked_size(size: int) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InvalidRequest(f"batch_size is {size!r}; allowed: whole numbers from 1 on")
    return size


def _prompt(prompt: str | Sequence[int]) -> str | Array:
    if isinstance(prompt, str):
        return prompt
    import numpy as np

    return np.asarray(prompt, dtype=np.int64).reshape(1, -1)
