"""The replica of a language model: calls in, events and texts out, one stream a request."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

import numpy as np
import orjson
from prometheus_client import CollectorRegistry

from actors.delivery.withdrawals import Withdrawals
from actors.language.endpoints import OpenAiEndpoints, Order
from actors.language.gate import Turnstile
from actors.language.prompts import PromptMaker
from actors.language.watch import Watch
from actors.model_replica import ReplicaSetup
from actors.node_folder import metrics_folder
from actors.process_limits import end_process
from actors.tracing.opened import close_spans, span_of_stream, spans_of
from cluster.config.language.settings import LanguageConfig
from cluster.engines.language.engine import LanguageSetup
from cluster.engines.language.fit import check_files
from cluster.engines.language.table import make_language_engine
from cluster.engines.language.tokens import ModelTokenizer
from cluster.errors import EngineFailed, InvalidRequest, ModelNotFound, SquadronError, Unsupported
from cluster.observability.language_metrics import declare_language_metrics
from cluster.observability.metrics import make_metrics
from cluster.protocols.envelope import Call, Reply, decode_calls, encode_replies
from cluster.protocols.openai.answers import Usage
from cluster.protocols.openai.parameters import (
    COUNT_TOKENS,
    COUNTED,
    ENDPOINT,
    adapter_of,
    completion_of,
)
from cluster.protocols.openai.requests import CompletionRequest, decode
from cluster.scheduling.policy import policy_of
from cluster.tensors import Tensor, bytes_array

LOOK_S = 0.5
"""How often the engine's own numbers are passed on."""

logger = logging.getLogger("squadron.language")


class LanguageReplica:
    """Serve constructs one a replica; `start` it on the loop that it will live on.

    `end` ends this process when its engine is gone: a door tries what had no token yet elsewhere
    when a replica dies, and would only meet this one again if it lived on until Serve looks."""

    def __init__(
        self,
        setup: ReplicaSetup,
        *,
        metrics_at: Path | None = None,
        end: Callable[[str], None] = end_process,
    ) -> None:
        self._setup = setup
        self._end = end
        self._config = setup.llm or LanguageConfig()
        self._engine = make_language_engine(
            setup.engine,
            LanguageSetup(
                name=setup.variant,
                folder=setup.folder,
                config=self._config,
                device=setup.device,
                threads=setup.threads,
            ),
        )
        make_metrics(metrics_at or metrics_folder())
        self._watch = Watch(declare_language_metrics(CollectorRegistry()), setup.variant)
        self._turns = Turnstile(self._config.queue, places=self._config.max_num_seqs)
        self._policy = policy_of(setup.batching, is_batched=False)
        lora = self._config.lora
        self._adapters = {each.name for each in lora.adapters} if lora is not None else set()
        self._loaded: dict[str, tuple[tuple[str, int, int], ...]] = {}
        self._spans = spans_of(setup.tracing, setup.variant)
        self._loading = asyncio.Lock()
        self._is_closing = False

    async def start(self) -> None:
        check_files(self._config)
        tokenizer = await asyncio.to_thread(
            ModelTokenizer, self._setup.folder, self._config.chat_template
        )
        await self._engine.start()
        self._endpoints = OpenAiEndpoints(
            self._engine,
            PromptMaker(tokenizer, self._engine.max_model_len),
            self._config,
            self._turns,
            self._watch,
            adapter=self._have_adapter,
        )
        # The first request would otherwise pay for what is made at first use.
        warm = CompletionRequest(model=self._setup.variant, prompt="a", max_tokens=2)
        async with aclosing(self._endpoints.text(warm, Order())) as pieces:
            async for _ in pieces:
                pass
        self._looking = asyncio.get_running_loop().create_task(self._look())

    @property
    def tally(self) -> Turnstile:
        """How busy it has been."""
        return self._turns

    async def infer(
        self, message: bytes | memoryview, withdrawals: Withdrawals | None = None
    ) -> bytes:
        """Refuses: a door asks a language model for a stream."""
        error = Unsupported(f"{self._setup.variant} is decoupled: it answers streams only")
        calls = decode_calls(message)
        return encode_replies(Reply(call_id=call.call_id, error=error) for call in calls)

    async def stream(self, message: bytes) -> AsyncGenerator[bytes, None]:
        """An envelope of one call in, envelopes of one part each out; an error is the last.

        Closing it, or cancelling who reads it, takes the request out of the engine.
        """
        (call,) = decode_calls(message)
        used = Usage()
        try:
            with span_of_stream(self._spans, call):
                async with aclosing(self._parts(call, used)) as parts:
                    async for part in parts:
                        yield encode_replies([_reply(call, part, used)])
        except SquadronError as error:
            self._end_without_engine()
            yield encode_replies([Reply(call_id=call.call_id, error=error)])
        except Exception as error:
            # A bug of ours or of the runtime's: told by name only.
            logger.exception("a request to %s failed", self._setup.variant)
            self._end_without_engine()
            failed = EngineFailed(f"the language model failed: {type(error).__name__}")
            yield encode_replies([Reply(call_id=call.call_id, error=failed)])

    def check_health(self) -> None:
        """Serve asks every health period. Raises: EngineFailed when this replica cannot answer."""
        self._engine.check_health()

    async def close(self) -> None:
        self._is_closing = True
        self._looking.cancel()
        await self._engine.close()
        await close_spans(self._spans)

    async def _parts(self, call: Call, used: Usage) -> AsyncGenerator[bytes, None]:
        body = bytes(call.inputs[0].array.item())
        endpoint = str(call.parameters.get(ENDPOINT, ""))
        order = Order(
            lora=adapter_of(call.parameters),
            level=self._policy.level_of(call.priority),
            used=used,
        )
        match endpoint:
            case "chat":
                found = self._endpoints.chat(body, order)
            case "completions":
                found = self._endpoints.completions(body, order)
            case "tokenize":
                found = self._endpoints.tokenize(body)
            case "detokenize":
                found = self._endpoints.detokenize(body)
            case "":
                found = self._texts(body, call, order)
            case _:
                raise InvalidRequest(f"parameter '{ENDPOINT}': no endpoint {endpoint[:40]!r}")
        async with aclosing(found) as parts:
            async for part in parts:
                yield part

    async def _texts(self, body: bytes, call: Call, order: Order) -> AsyncGenerator[bytes, None]:
        fields, streams = completion_of(body, call.parameters, model=self._setup.variant)
        asked = decode(orjson.dumps(fields), CompletionRequest)
        whole = []
        async with aclosing(self._endpoints.text(asked, order)) as pieces:
            async for piece in pieces:
                if streams:
                    yield piece.encode()
                else:
                    whole.append(piece)
        if not streams:
            yield "".join(whole).encode()

    async def _have_adapter(self, name: str) -> None:
        """Load an adapter that lies in the configured folder when it is first asked for, and again
        when its files are others; one that was taken away is no model any more."""
        lora = self._config.lora
        if not name or name in self._adapters:
            return
        if lora is None or not lora.directory or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            raise ModelNotFound(f"The model `{self._setup.variant}:{name}` does not exist")
        folder = Path(lora.directory) / name
        found = await asyncio.to_thread(_files_of, folder)
        if not found:
            # The engine keeps it for those that are being answered, and drops it for others'.
            self._loaded.pop(name, None)
            raise ModelNotFound(f"The model `{self._setup.variant}:{name}` does not exist")
        if self._loaded.get(name) == found:
            return
        async with self._loading:
            if self._loaded.get(name) != found:
                await self._engine.add_lora(name, str(folder))
                self._loaded[name] = found

    async def _look(self) -> None:
        while True:
            self._end_without_engine()
            self._watch.look(self._engine.load(), num_waiting=self._turns.num_waiting)
            await asyncio.sleep(LOOK_S)

    def _end_without_engine(self) -> None:
        if self._is_closing:
            return
        try:
            self._engine.check_health()
        except EngineFailed as error:
            self._end(error.message)


def _files_of(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change (ns) of an adapter's files; none where there is no adapter."""
    try:
        if not (folder / "adapter_config.json").is_file():
            return ()
        told = ((each.name, each.stat()) for each in sorted(folder.iterdir()))
        return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in told)
    except OSError:
        # Taken away while it was looked at.
        return ()


def _reply(call: Call, part: bytes, used: Usage) -> Reply:
    array = bytes_array([part], (1,))
    outputs = [Tensor(name="text_output", datatype="BYTES", array=array)]
    if COUNT_TOKENS in call.parameters:
        counts = np.array([used.prompt_tokens, used.completion_tokens], np.int64)
        outputs.append(Tensor(name=COUNTED, datatype="INT64", array=counts))
    return Reply(call_id=call.call_id, outputs=tuple(outputs))
