"""Language models with torch and transformers alone: for machines without vLLM.

Any causal model of transformers with full or sliding attention. Keys and values lie in slots of
our own (`kv_slots`), requests join and leave the batch at any step (`torch_batch`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any

from cluster.engines.engine import EngineFacts
from cluster.engines.language.engine import LanguageSetup, Prompt
from cluster.engines.language.grammar import compile_grammar, given_up
from cluster.engines.language.kv_slots import KvShape, KvSlots, Window
from cluster.engines.language.sampler import Sampler
from cluster.engines.language.text_out import TextOut
from cluster.engines.language.tokens import ModelTokenizer
from cluster.engines.language.torch_batch import Computed, Sequence, TorchBatch
from cluster.errors import ConfigError, EngineFailed, Unsupported
from cluster.generation import Delta, EngineLoad, Grammar, Sampling

_FULL = "full_attention"
_SLIDING = "sliding_attention"


class TorchLanguageEngine:
    """See `LanguageEngine`."""

    def __init__(self, setup: LanguageSetup) -> None:
        self._setup = setup
        self._refuse_what_it_cannot()
        self._lock = threading.Condition()
        self._arrived: list[Sequence] = []
        self._is_closing = False
        self._failure = ""
        self._thread: threading.Thread | None = None
        self._num_running = self._num_waiting = 0
        self._kv_usage = 0.0

    def _refuse_what_it_cannot(self) -> None:
        wrong = self._setup.config.needs_vllm()
        if wrong:
            raise ConfigError(
                f"engine 'torch' has no llm.{', llm.'.join(wrong)}; engine: vllm has",
                key="llm",
                value=", ".join(wrong),
            )

    async def start(self) -> None:
        await asyncio.to_thread(self._read)
        self._thread = threading.Thread(target=self._run, name="language-engine", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        torch.set_num_threads(self._setup.threads)
        config = self._setup.config
        wanted = self._setup.device
        device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
        )
        dtype = "auto" if config.dtype == "auto" else getattr(torch, config.dtype)
        if config.load_format == "dummy":
            self._model: Any = _dummy(self._setup, dtype)
        else:
            try:
                self._model = AutoModelForCausalLM.from_pretrained(
                    self._setup.folder,
                    dtype=dtype,
                    attn_implementation="sdpa",
                    local_files_only=True,
                    trust_remote_code=False,
                )
            except ValueError as error:
                # An architecture without attention, or one that transformers does not know.
                raise ConfigError(
                    f"engine 'torch' cannot run {self._setup.name}: {error}", key="engine"
                ) from None
        self._model.to(device).eval()
        self._tokenizer = ModelTokenizer(self._setup.folder)
        model = self._model.config
        window = _window_of(self._model)
        self._max_len = config.max_model_len or int(model.max_position_embeddings)
        heads = int(model.num_attention_heads)
        shape = KvShape(
            num_layers=int(model.num_hidden_layers),
            num_kv_heads=int(getattr(model, "num_key_value_heads", None) or heads),
            head_dim=int(getattr(model, "head_dim", None) or model.hidden_size // heads),
            dtype=self._model.dtype,
            device=device,
            window=window,
        )
        capacity = config.max_num_seqs * self._max_len
        if config.kv_cache_bytes:
            capacity = min(capacity, config.kv_cache_bytes // shape.bytes_per_token)
        if capacity < self._max_len:
            raise ConfigError(
                f"llm.kv_cache_bytes {config.kv_cache_bytes} holds {capacity} tokens, fewer than "
                f"one sequence of max_model_len {self._max_len}",
                key="llm.kv_cache_bytes",
                value=config.kv_cache_bytes,
            )
        slots = KvSlots(
            shape,
            max_slots=config.max_num_seqs,
            max_length=self._max_len,
            grows=config.cache_growth == "dynamic",
        )
        self._batch = TorchBatch(self._model, slots, capacity_tokens=capacity)
        self._eos = _eos_of(self._model, self._tokenizer)
        self._grammars: Any = None

    @property
    def facts(self) -> EngineFacts:
        weights = sum(each.numel() * each.element_size() for each in self._model.parameters())
        return EngineFacts(
            engine="torch",
            provider="transformers",
            device=str(self._model.device),
            precision=str(self._model.dtype).removeprefix("torch."),
            threads=self._setup.threads,
            weight_bytes=weights,
        )

    @property
    def max_model_len(self) -> int:
        return self._max_len

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        if prompt.lora:
            raise Unsupported("engine 'torch' has no adapters; engine: vllm has")
        if self._failure:
            raise EngineFailed(self._failure)
        loop = asyncio.get_running_loop()
        deltas: asyncio.Queue[Delta] = asyncio.Queue()

        def deliver(delta: Delta) -> None:
            loop.call_soon_threadsafe(deltas.put_nowait, delta)

        grammar = sampling.grammar
        matchers: list[Any] = [None] * sampling.num_choices
        if grammar is not None:
            matchers = await asyncio.to_thread(self._matchers, grammar, sampling.num_choices)
        shared = Computed()
        sequences = [
            self._sequence(index, prompt, sampling, matcher, deliver, shared)
            for index, matcher in enumerate(matchers)
        ]
        with self._lock:
            self._arrived += sequences
            self._lock.notify()
        num_open = len(sequences)
        try:
            while num_open:
                delta = await deltas.get()
                if delta.finish_reason == "abort":
                    raise self._aborted(sampling)
                num_open -= bool(delta.finish_reason)
                yield delta
        finally:
            for sequence in sequences:
                sequence.is_gone = True
            with self._lock:
                self._lock.notify()

    def load(self) -> EngineLoad:
        return EngineLoad(
            num_running=self._num_running,
            num_waiting=self._num_waiting + len(self._arrived),
            kv_usage=self._kv_usage,
        )

    def check_health(self) -> None:
        if self._failure or self._thread is None or not self._thread.is_alive():
            raise EngineFailed(self._failure or "the language engine does not run")

    async def add_lora(self, name: str, path: str) -> None:
        raise Unsupported("engine 'torch' has no adapters; engine: vllm has")

    async def remove_lora(self, name: str) -> None:
        raise Unsupported("engine 'torch' has no adapters; engine: vllm has")

    async def close(self) -> None:
        with self._lock:
            self._is_closing = True
            self._lock.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _matchers(self, grammar: Grammar, count: int) -> list[Any]:
        from llguidance import LLMatcher
        from llguidance.hf import from_tokenizer

        if self._grammars is None:
            size = int(self._model.config.vocab_size)
            self._grammars = from_tokenizer(self._tokenizer.hf, n_vocab=size, eos_token=self._eos)
        compiled = compile_grammar(grammar)
        return [LLMatcher(self._grammars, compiled) for _ in range(count)]

    def _sequence(
        self,
        index: int,
        prompt: Prompt,
        sampling: Sampling,
        matcher: Any,
        deliver: Any,
        shared: Computed,
    ) -> Sequence:
        eos = () if sampling.ignore_eos else self._eos
        return Sequence(
            index=index,
            prompt=prompt.token_ids,
            max_tokens=sampling.max_tokens,
            min_tokens=sampling.min_tokens,
            eos=frozenset(eos),
            stop_tokens=frozenset(sampling.stop_token_ids),
            sampler=Sampler(
                sampling, prompt.token_ids, index=index, eos=self._eos, matcher=matcher
            ),
            text=TextOut(
                self._tokenizer,
                sampling.stop,
                prompt=prompt.token_ids,
                keeps_stop=sampling.keeps_stop,
                skips_special=sampling.skips_special,
            ),
            streams=sampling.streams,
            deliver=deliver,
            shared=shared,
            priority=prompt.priority,
        )

    def _aborted(self, sampling: Sampling) -> Exception:
        if self._failure or self._is_closing:
            return EngineFailed(self._failure or "the language engine was closed")
        return given_up(sampling)

    def _run(self) -> None:
        """The engine's thread."""
        while True:
            with self._lock:
                while not (self._arrived or self._batch.has_work or self._is_closing):
                    self._lock.wait()
                arrived, self._arrived = self._arrived, []
                if self._is_closing:
                    self._end([*arrived, *self._batch.clear()])
                    return
            for sequence in arrived:
                self._batch.add(sequence)
            self._count()
            try:
                self._batch.step()
            except Exception as error:
                # A bug of ours or of the runtime's: told by name; Serve replaces the replica.
                self._failure = f"the language engine failed: {type(error).__name__}"
                self._end(self._batch.clear())
                return
            finally:
                self._count()

    def _count(self) -> None:
        self._num_running = len(self._batch.running)
        self._num_waiting = len(self._batch.waiting)
        self._kv_usage = self._batch.kv_usage

    def _end(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            sequence.deliver(Delta(index=sequence.index, text="", finish_reason="abort"))


def _window_of(model: Any) -> Window | None:
    """What of a sequence its layers see. Raises: ConfigError for layers that keep anything else
    than keys and values of tokens."""
    config = model.config
    size = getattr(config, "sliding_window", None)
    found = set(getattr(config, "layer_types", None) or ())
    kinds = found or {_SLIDING if size else _FULL}
    others = sorted(kinds - {_SLIDING, _FULL})
    if others or not getattr(config, "num_attention_heads", None):
        raise ConfigError(
            f"engine 'torch' runs models with full or sliding attention; {config.model_type} has "
            f"{', '.join(others) or 'no attention'}: engine: vllm may have it",
            key="engine",
            value="torch",
        )
    if _SLIDING not in kinds or not size:
        return None
    return Window(num_tokens=int(size), is_mixed=_FULL in kinds)


def _eos_of(model: Any, tokenizer: ModelTokenizer) -> list[int]:
    found = getattr(model.generation_config, "eos_token_id", None)
    if found is None:
        found = tokenizer.hf.eos_token_id
    return list(found) if isinstance(found, list) else [int(found)]


def _dummy(setup: LanguageSetup, dtype: Any) -> Any:
    """The architecture with random weights: what serving costs without a download."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(setup.config.seed)
    config = AutoConfig.from_pretrained(
        setup.folder, local_files_only=True, trust_remote_code=False
    )
    make: Any = AutoModelForCausalLM.from_config
    model = make(config, attn_implementation="sdpa", trust_remote_code=False)
    return model if dtype == "auto" else model.to(dtype)
