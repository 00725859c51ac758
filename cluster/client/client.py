"""The SDK's door: models in this process, or a server's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cluster.client.measure.validation import validate_accuracy
from cluster.client.model import DEFAULT_BATCH_SIZE, Model
from cluster.client.remote.coding import Compression
from cluster.client.remote.http import HttpServer
from cluster.client.remote.jobs import server_of
from cluster.client.remote.optimized import OptimizedBackend, search_there
from cluster.client.remote.placed import load_placed
from cluster.client.remote.retry import Retry
from cluster.client.remote.server import Server
from cluster.client.remote.settings import ServerSettings
from cluster.client.search.optimize import (
    NUM_ROUNDS,
    run_search,
    write_ort,
    write_phone_files,
)
from cluster.client.staged.placement import placement_of
from cluster.client.values import BatchFigure
from cluster.client.workplace import Workplace, cache_in, make_workplace, open_backend, open_staged
from cluster.config.model_card import ModelCard
from cluster.errors import ConfigError, Unsupported
from cluster.optimization.gate.gate import GateLimits, Verdict
from cluster.optimization.progress import Progress
from cluster.tensors import Array

if TYPE_CHECKING:
    from torch import nn

Given = Any
"""A path, a name of the store or the server, a torch module, or a model loaded before."""


class Client:
    """Without `url` everything runs in this process, without a server; with `http://HOST:PORT` or
    `grpc://HOST:PORT` the models are that server's. Safe to use from several threads.

    `api_key` is sent as `Authorization: Bearer`, `headers` with every request. `retries`: of calls
    whose connection broke and of answers 429, 502 and 503, with growing waits. `compression`: gzip
    or deflate, both ways. `shared_memory`: large inputs go to a server on this machine by shared
    memory, where its configuration allows that (HTTP only). `store`, `device` and `threads` are of
    models in this process.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        compression: Compression | None = None,
        max_connections: int = 100,
        headers: Mapping[str, str] | None = None,
        verify: bool | str = True,
        shared_memory: bool = False,
        store: str | Path | None = None,
        device: str = "auto",
        threads: int = 1,
    ) -> None:
        """Raises: ConfigError for an address or a setting that cannot be. Opens no connection."""
        self.settings: ServerSettings | None = None
        self._server: Server | None = None
        if url is not None:
            self.settings = ServerSettings(
                url=url,
                api_key=api_key or "",
                timeout_s=timeout_s,
                retry=Retry(max_retries=retries),
                compression=compression,
                max_connections=max_connections,
                headers=dict(headers or {}),
                verify=verify,
                uses_shared_memory=shared_memory,
            )
            self._server = _server(self.settings)
        elif api_key is not None:
            raise ConfigError(
                "api_key is for a server: give its url, or leave out the key", key="api_key"
            )
        self._place: Workplace = make_workplace(store, device, threads)
        self._models: list[Model] = []
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_remote(self) -> bool:
        return self._server is not None

    def is_ready(self) -> bool:
        """Whether the server can serve all its models; in this process always."""
        if self._server is None:
            return not self._is_closed
        return self._server.is_ready()

    def list_models(self) -> list[str]:
        """Names that `load_model` takes: the server's, or the store's."""
        if self._server is None:
            return sorted({card.name for card in self._place.store.list()})
        return self._server.model_names()

    def load_model(
        self,
        path: str | Path | nn.Module,
        use_cache: bool = True,
        *,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        example: Mapping[str, Array] | None = None,
        name: str = "",
    ) -> Model:
        """Of a server: `path` is NAME or NAME/VERSION as the server knows it. In this process: a
        file, a folder, a name in the store, a Hugging Face directory, `file.py:Class` or a torch
        module with `example`, one row of its inputs.

        `use_cache`: what must be exported first (a Hugging Face encoder) is taken from the cache
        where it was exported before. `inputs`, `outputs`: NAME:DATATYPE:DIMS where a file does not
        say. Raises: ModelNotFound, ConfigError. Pickles are never opened.
        """
        self._check_open()
        if self._server is not None:
            if not isinstance(path, str):
                raise Unsupported(
                    "a server's models are called by name; for a file of your own use Client() "
                    "without a url, or add it to the server's store: squadron models add PATH"
                )
            backend = self._server.open(path)
            config: Mapping[str, Any] = getattr(backend, "config", {})
            largest = int(config.get("max_batch_size", 0)) or DEFAULT_BATCH_SIZE
            return self._kept(Model(backend, source=path, batch_size=largest))
        made = open_backend(
            path,
            self._place,
            use_cache=use_cache,
            inputs=inputs,
            outputs=outputs,
            example=example,
            name=name,
        )
        return self._kept(Model(made, source=path, example=example, place=self._place))

    def optimize(
        self,
        model: Given,
        *,
        target: str = "latency",
        target_device: str = "cpu",
        level: str = "balanced",
        use_cache: bool = True,
        custom_operators: Sequence[object] = (),
        candidates: Sequence[str | Path] = (),
        options: Mapping[str, Any] | None = None,
        data: Any = None,
        example: Mapping[str, Array] | None = None,
        limits: GateLimits | None = None,
        progress: Progress | None = None,
        num_rounds: int = NUM_ROUNDS,
        timeout_s: float | None = None,
    ) -> Model:
        """The fastest variant of the model that passes the accuracy gate, measured on this machine,
        with its `report`: every candidate, what it costs in accuracy, which options were ignored
        and why. `keep` and `add_to_store` make it an arm of an experiment.

        `target`: latency, throughput (8 rows a call) or size. `level`: basic, balanced or max.
        `data`: arrays by input name whose first axis counts the rows, `labels` among them if known,
        or a folder (see `squadron optimize --help`); without it nothing is validated, and the
        report says so. `example`: one row of inputs of a torch module. `candidates`: other
        architectures for the same task. `num_rounds`: in which the variants take turns when timed.

        A model that was loaded from a server is searched over there, on its cluster's hardware
        (HTTP and an admin key): `candidates` are names in its store, `progress` is told the steps,
        Ctrl-C ends it, and so does `timeout_s` (half an hour if left out, six at most). What was
        chosen answers once `add_to_store` has put it into the server's store and it is served.
        Everything else is searched over here, also by a server's client.
        Raises: ConfigError naming the option, its value and what is allowed.
        """
        self._check_open()
        wishes: dict[str, Any] = {
            "target": target,
            "target_device": target_device,
            "level": level,
            "use_cache": use_cache,
            "custom_operators": custom_operators,
            "candidates": candidates,
            "options": options,
            "data": data,
            "limits": limits,
            "progress": progress,
            "num_rounds": num_rounds,
        }
        if isinstance(model, Model) and model.is_remote:
            return self._optimized_there(model, example=example, timeout_s=timeout_s, **wishes)
        if timeout_s is not None:
            raise ConfigError(
                "timeout_s is of a search on a server; one in this process is ended by Ctrl-C",
                key="timeout_s",
                value=str(timeout_s),
            )
        given, rows = model, example
        if isinstance(model, Model):
            given, rows = _source_of(model), example or model.example
        report, plan = run_search(given, self._place, example=rows, **wishes)
        made = self._chosen(report, given, rows, plan.threads)
        made.applied = dict(plan.acts)
        if plan.is_for_phones:
            made.ort_file = write_ort(report, self._place, plan)
        if plan.platform:
            files, missing = write_phone_files(given, rows, self._place, plan)
            made.edge_files = files
            told = {f"target_platform{suffix}": why for suffix, why in missing.items()}
            made.report = replace(report, ignored={**report.ignored, **told})
        return made

    def shard_model(
        self,
        model: Given,
        num_shards: int | None = None,
        strategy: str = "layer",
        shard_config: Mapping[str, Any] | None = None,
    ) -> Model:
        """The model cut into shards; the answers are those of the whole model.

        Of a server (with `repository_control: explicit`): its model of this name is served so from
        now on, to everyone, by processes on its cluster's devices, with any `strategy`: layer (one
        call at a time), pipeline (micro-batches in flight), tensor (every layer cut by columns and
        rows), data (`num_shards` whole copies), auto, and with `shard_config={"tensor": N}` slices
        within stages. In this process: layer, pipeline or auto; each stage holds its own layers
        only, and what spares memory is a bound on each (`enable_memory_optimization`).

        `shard_config`: the keys of the YAML's `placement:` (`shard_map`, `max_memory_mb`, …).
        Formats: ONNX, `torch.export` and Hugging Face directories of Llama, Mistral, Qwen2, Qwen3,
        GPT-2, BERT and ViT.
        Raises: ConfigError or InvalidRequest for a cut that does not fit; Unsupported by a server
        that loads nothing on request, with what to write instead.
        """
        self._check_open()
        copies = num_shards if strategy == "data" else None
        placement = placement_of(None if copies else num_shards, strategy, shard_config)
        if self._server is not None:
            name = model.name if isinstance(model, Model) else str(model)
            load_placed(self._server, name, placement, replicas=copies)
            return self.load_model(name)
        given = _source_of(model) if isinstance(model, Model) else model
        backend = open_staged(given, self._place, placement)
        return self._kept(Model(backend, source=given, place=self._place))

    def accelerate(self, model: Given, **wishes: Any) -> Model:
        """The same as `optimize`, with the same keywords."""
        return self.optimize(model, **wishes)

    def add_to_store(self, model: Model, name: str) -> ModelCard:
        """What `optimize` chose as the next version of `name` in the store, ready to be served, and
        its card; of a search on a server, in that server's store. Raises: ConfigError for a model
        that no search made, or a torch module."""
        from cluster.optimization.search.keep import add_to_store

        if model.report is None:
            raise ConfigError(f"{model.name} was not made by optimize", key="model")
        if isinstance(model.backend, OptimizedBackend):
            return model.backend.add(name)
        return add_to_store(model.report, self._place.store, name)

    def enable_model_cache(self, cache_dir: str | Path, max_cache_size_gb: float = 10.0) -> None:
        """Where exports and optimised variants are kept from now on; the least recently used go
        when they are more. Raises: ConfigError for a folder that cannot be written."""
        self._place.cache = cache_in(cache_dir, max_cache_size_gb)

    def benchmark(
        self, model: Model, batch_sizes: Sequence[int] = (1,), *, data: Any = None
    ) -> tuple[BatchFigure, ...]:
        """As `Model.benchmark`."""
        return model.benchmark(batch_sizes, data=data)

    def validate_accuracy(self, a: Model, b: Model, data: Any = None, **wishes: Any) -> Verdict:
        """As `validate_accuracy` of this package."""
        return validate_accuracy(a, b, data, **wishes)

    def close(self) -> None:
        """Unload every model, close every connection. Closing twice does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        for model in self._models:
            model.close()
        if self._server is not None:
            self._server.close()
        self._place.close()

    def _chosen(
        self,
        report: Any,
        given: Any,
        example: Mapping[str, Array] | None,
        threads: int,
    ) -> Model:
        from cluster.client.embedded import EngineBackend

        variant = report.chosen.variant
        if variant is None:
            backend = open_backend(given, self._place, example=example)
        else:
            backend = EngineBackend(variant, device=variant.device, threads=threads)
        made = Model(backend, source=given, example=example, report=report, place=self._place)
        return self._kept(made)

    def _optimized_there(self, model: Model, **wishes: Any) -> Model:
        made, report, applied = search_there(
            server_of(model.backend, "optimize"),
            model.backend,
            str(model.source),
            threads=self._place.threads,
            **wishes,
        )
        found = Model(made, source=model.source, report=report, batch_size=model.batch_size)
        found.applied = applied
        return self._kept(found)

    def _kept(self, model: Model) -> Model:
        self._models = [each for each in self._models if not each.is_closed]
        self._models.append(model)
        return model

    def _check_open(self) -> None:
        if self._is_closed:
            raise ConfigError("the client was closed", key="client")


def _server(settings: ServerSettings) -> Server:
    if settings.is_http:
        return HttpServer(settings)
    # grpc takes a third of a second to import.
    from cluster.client.remote.grpc import GrpcServer

    return GrpcServer(settings)


def _source_of(model: Model) -> Any:
    if model.source is None:
        raise ConfigError(f"{model.name} was not loaded from anything that can be searched")
    return model.source
