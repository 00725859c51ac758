"""A model cut into stages, all in this process: what a group of shards computes, without a group.

Each stage holds its own layers only; strategy `pipeline` keeps several micro-batches in flight, a
thread a stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from cluster.client.staged.placement import yaml_of
from cluster.config.model_card import ModelCard
from cluster.config.placement import PlacementConfig
from cluster.engines.sharded.layers import layered_model, stage_artefacts
from cluster.engines.sharded.make import make_part
from cluster.engines.sharded.part import Part, PartSetup, Step, Values
from cluster.engines.sharded.stages import let_go
from cluster.errors import ConfigError, EngineFailed
from cluster.optimization.measure.as_before import torch_as_before
from cluster.placement.partition import MIB, Layout, lay_out
from cluster.processing.pipeline import Pipeline
from cluster.tensors import Array, Signature


class StagedBackend:
    """See `Backend`. Formats `onnx` and `huggingface`.

    Raises: ConfigError for a model that cannot be cut as asked.
    """

    is_remote = False

    def __init__(
        self,
        card: ModelCard,
        folder: Path,
        placement: PlacementConfig,
        *,
        threads: int = 1,
        kv_tokens: int = 0,
    ) -> None:
        if placement.strategy in ("tensor", "data") or placement.tensor > 1:
            what = "data" if placement.strategy == "data" else "tensor"
            raise ConfigError(
                f"strategy {what} needs several processes, and a client without a url has this one "
                "only: start `squadron serve` with server: {repository_control: explicit} and call "
                "Client(url).shard_model with the model's name there and the same arguments, or "
                f"write in the server's YAML: {yaml_of(placement)}",
                key="strategy",
                value=what,
                allowed="layer, pipeline, auto",
            )
        self.card = card
        self.folder = folder
        self.placement = placement
        self.threads = threads
        self._engine = "onnxruntime" if card.format == "onnx" else "torch"
        self.layout: Layout = lay_out(placement, layered_model(card, folder))
        self._pipeline = Pipeline(card, folder)
        self._turn = Lock()
        self._is_closed = False
        self._parts: tuple[Part, ...] = ()
        self._pools: tuple[ThreadPoolExecutor, ...] = ()
        self._artefacts: tuple[str, ...] = ()
        self.stage_bytes: tuple[int, ...] = ()
        self._load()

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def is_batched(self) -> bool:
        return self.card.batched

    @property
    def signature(self) -> Signature:
        return self._pipeline.signature

    @property
    def num_stages(self) -> int:
        return self.layout.num_stages

    def infer(self, inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        prepared = self._pipeline.prepare(dict(inputs))
        arrays = self._pipeline.merge([prepared])
        with self._turn:
            self._check_open()
            answer = self._run(arrays, prepared.rows)
        wanted = set(outputs) or {spec.name for spec in self.signature.outputs}
        return self._pipeline.finish(answer, arrays, wanted)

    def replace(self, placement: PlacementConfig) -> None:
        """The same model under another placement. Raises: ConfigError; then nothing changed."""
        layout = lay_out(placement, layered_model(self.card, self.folder))
        with self._turn:
            self._check_open()
            self.placement, self.layout = placement, layout
            self._release()
            self._load()

    def close(self) -> None:
        with self._turn:
            if not self._is_closed:
                self._is_closed = True
                self._release()

    def _load(self) -> None:
        artefacts = stage_artefacts(self.card, self.folder, self.layout)
        self._artefacts = artefacts
        cap_mb = self.placement.max_memory_mb
        parts = tuple(
            make_part(
                PartSetup(
                    card=self.card,
                    folder=self.folder,
                    shard=shard,
                    threads=self.threads,
                    max_memory_bytes=None if cap_mb is None else int(cap_mb * MIB),
                    kv_cache=self.placement.kv_cache,
                    kv_cache_tokens=self.placement.kv_cache_tokens,
                    artefact=artefacts[shard.stage] if artefacts else "",
                )
            )
            for shard in self.layout.shards
        )
        with torch_as_before(engine=self._engine):
            self.stage_bytes = tuple(part.load().weight_bytes for part in parts)
        self._parts = parts
        if self.layout.micro_batches > 1:
            self._pools = tuple(
                ThreadPoolExecutor(1, thread_name_prefix=f"stage-{index}")
                for index in range(len(parts))
            )

    def _release(self) -> None:
        for pool in self._pools:
            pool.shutdown()
        for part in self._parts:
            part.close()
        self._parts, self._pools = (), ()
        let_go(self._artefacts)
        self._artefacts = ()

    def _run(self, arrays: dict[str, Array], rows: int) -> dict[str, Array]:
        if not self._pools or rows < 2 or not self.card.batched:
            return _numbers(self._through(arrays, Step()))
        count = min(rows, self.layout.micro_batches)
        cuts = [np.array_split(np.arange(rows), count)[index] for index in range(count)]
        flights = [self._fly({n: a[cut] for n, a in arrays.items()}) for cut in cuts]
        answers = [_numbers(flight.result()) for flight in flights]
        return {name: np.concatenate([each[name] for each in answers]) for name in answers[0]}

    def _fly(self, values: Values) -> Future[Values]:
        """A micro-batch on its way: each stage's thread waits for the stage before."""
        coming: Future[Values] = Future()
        coming.set_result(values)
        for part, pool in zip(self._parts, self._pools, strict=True):
            coming = pool.submit(_after, coming, part)
        return coming

    def _through(self, values: Values, step: Step) -> Values:
        with torch_as_before(engine=self._engine):
            for part in self._parts:
                values = part.run(values, step)
        return values

    def _check_open(self) -> None:
        if self._is_closed:
            raise EngineFailed(f"model {self.name!r} was unloaded")


def _after(coming: Future[Values], part: Part) -> Values:
    values = coming.result()
    with torch_as_before():
        return part.run(values, Step())


def _numbers(values: Mapping[str, Any]) -> dict[str, Array]:
    return {n: x if isinstance(x, np.ndarray) else x.numpy() for n, x in values.items()}
