"""The SDK for asyncio: a server is talked to without threads, what computes here does so in one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Self

from cluster.client.client import Client
from cluster.client.inputs import apart, groups, named_inputs, num_rows, together
from cluster.client.model import OPTIMAL_OF, Model, checked_size
from cluster.client.remote.backend import HttpBackend
from cluster.client.remote.coding import JSON_LENGTH, decode_answer
from cluster.client.remote.http import AsyncHttpServer
from cluster.client.remote.jobs import GIVEN_UP
from cluster.client.values import BatchFigure
from cluster.config.model_card import ModelCard
from cluster.optimization.gate.gate import Verdict
from cluster.tensors import Array, Signature


class AsyncModel:
    """See `Model`, whose settings (`enable_…`, `set_batch_size`, …) are those of `sync`."""

    def __init__(self, sync: Model, server: AsyncHttpServer | None) -> None:
        self.sync = sync
        self._server = server

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def name(self) -> str:
        return self.sync.name

    @property
    def signature(self) -> Signature:
        return self.sync.signature

    async def predict(
        self, inputs: Any = None, /, *, outputs: Sequence[str] = (), **named: Any
    ) -> dict[str, Array]:
        """As `Model.predict`."""
        given = named_inputs(inputs, named, self.signature)
        if self._server is None or self.sync.has_dynamic_batching:
            return await asyncio.to_thread(self.sync.predict, given, outputs=outputs)
        return await self._ask(self._server, given, tuple(outputs))

    async def batch_predict(
        self, items: Sequence[Any], *, batch_size: int | None = None, outputs: Sequence[str] = ()
    ) -> list[dict[str, Array]]:
        """As `Model.batch_predict`; a server is asked for all batches at once."""
        if self._server is None:
            return await asyncio.to_thread(
                self.sync.batch_predict, items, batch_size=batch_size, outputs=outputs
            )
        size = self.sync.batch_size if batch_size is None else checked_size(batch_size)
        calls = [named_inputs(item, {}, self.signature) for item in items]
        is_batched = self.sync.backend.is_batched
        chosen = groups(calls, size, is_batched=is_batched)
        answers = await asyncio.gather(
            *(
                self._ask(self._server, together([calls[i] for i in group]), tuple(outputs))
                for group in chosen
            )
        )
        found: list[dict[str, Array]] = [{} for _ in calls]
        for group, answer in zip(chosen, answers, strict=True):
            rows = [num_rows(calls[i], is_batched=is_batched) for i in group]
            parts = [answer] if len(group) == 1 else apart(answer, rows)
            for index, part in zip(group, parts, strict=True):
                found[index] = part
        return found

    async def generate(
        self,
        prompt: str | Sequence[int],
        max_length: int = 64,
        use_cache: bool = True,
        **parameters: str | int | float | bool,
    ) -> Any:
        """As `Model.generate`."""
        return await asyncio.to_thread(
            self.sync.generate, prompt, max_length, use_cache, **parameters
        )

    async def benchmark(
        self, batch_sizes: Sequence[int] = (1,), *, data: Any = None, num_rounds: int = 10
    ) -> tuple[BatchFigure, ...]:
        """As `Model.benchmark`: one call at a time."""
        return await asyncio.to_thread(
            self.sync.benchmark, batch_sizes, data=data, num_rounds=num_rounds
        )

    async def get_optimal_batch_size(
        self, batch_sizes: Sequence[int] = OPTIMAL_OF, **wishes: Any
    ) -> int:
        """As `Model.get_optimal_batch_size`."""
        return await asyncio.to_thread(self.sync.get_optimal_batch_size, batch_sizes, **wishes)

    async def close(self) -> None:
        await asyncio.to_thread(self.sync.close)

    async def unload(self) -> None:
        """The same as `close`."""
        await self.close()

    async def _ask(
        self, server: AsyncHttpServer, inputs: dict[str, Array], outputs: tuple[str, ...]
    ) -> dict[str, Array]:
        backend = self.sync.backend
        assert isinstance(backend, HttpBackend), "a server's model"
        with self.sync.observed(inputs):
            path, body = backend.request(inputs, outputs)
            response = await server.send("POST", path, body)
            return decode_answer(response.content, response.headers.get(JSON_LENGTH))


class AsyncClient:
    """See `Client`, which takes the same arguments. For one event loop; over gRPC, and with inputs
    in shared memory, calls wait in threads."""

    def __init__(self, url: str | None = None, **settings: Any) -> None:
        self.sync = Client(url, **settings)
        told = self.sync.settings
        is_direct = told is not None and told.is_http and not told.uses_shared_memory
        self._server = AsyncHttpServer(told) if told is not None and is_direct else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_remote(self) -> bool:
        return self.sync.is_remote

    async def is_ready(self) -> bool:
        """As `Client.is_ready`."""
        return await asyncio.to_thread(self.sync.is_ready)

    async def list_models(self) -> list[str]:
        """As `Client.list_models`."""
        return await asyncio.to_thread(self.sync.list_models)

    async def load_model(self, path: Any, use_cache: bool = True, **how: Any) -> AsyncModel:
        """As `Client.load_model`."""
        made = await asyncio.to_thread(self.sync.load_model, path, use_cache, **how)
        return AsyncModel(made, self._server)

    async def optimize(self, model: Any, **wishes: Any) -> AsyncModel:
        """As `Client.optimize`. A task that is cancelled (also by `asyncio.timeout`) ends the job
        of a server's model, and has ended when that has; a search in this process goes on in its
        thread."""
        given = model.sync if isinstance(model, AsyncModel) else model
        search = partial(self.sync.optimize, given, **wishes)
        if isinstance(given, Model) and given.is_remote:
            return AsyncModel(await _given_up_with_its_caller(search), None)
        return AsyncModel(await asyncio.to_thread(search), None)

    async def accelerate(self, model: Any, **wishes: Any) -> AsyncModel:
        """The same as `optimize`."""
        return await self.optimize(model, **wishes)

    async def shard_model(
        self,
        model: str | Path,
        num_shards: int | None = None,
        strategy: str = "layer",
        shard_config: Mapping[str, Any] | None = None,
    ) -> AsyncModel:
        """As `Client.shard_model`."""
        made = await asyncio.to_thread(
            self.sync.shard_model, model, num_shards, strategy, shard_config
        )
        return AsyncModel(made, None)

    async def enable_model_cache(
        self, cache_dir: str | Path, max_cache_size_gb: float = 10.0
    ) -> None:
        """As `Client.enable_model_cache`."""
        await asyncio.to_thread(self.sync.enable_model_cache, cache_dir, max_cache_size_gb)

    async def benchmark(
        self, model: AsyncModel, batch_sizes: Sequence[int] = (1,), *, data: Any = None
    ) -> tuple[BatchFigure, ...]:
        """As `Client.benchmark`."""
        return await asyncio.to_thread(self.sync.benchmark, model.sync, batch_sizes, data=data)

    async def add_to_store(self, model: AsyncModel, name: str) -> ModelCard:
        """As `Client.add_to_store`."""
        return await asyncio.to_thread(self.sync.add_to_store, model.sync, name)

    async def validate_accuracy(
        self, a: AsyncModel, b: AsyncModel, data: Any = None, **wishes: Any
    ) -> Verdict:
        """As `Client.validate_accuracy`."""
        return await asyncio.to_thread(self.sync.validate_accuracy, a.sync, b.sync, data, **wishes)

    async def close(self) -> None:
        """Unload every model, close every connection."""
        await asyncio.to_thread(self.sync.close)
        if self._server is not None:
            await self._server.close()


async def _given_up_with_its_caller(search: Callable[[], Model]) -> Model:
    given_up = Event()
    token = GIVEN_UP.set(given_up)
    # The task has the context of now, and its thread that of the task.
    task = asyncio.create_task(asyncio.to_thread(search))
    GIVEN_UP.reset(token)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        given_up.set()
        # Not before the job was ended: the client may be closed next.
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # it is the cancelling that is told
        raise
