"""vLLM's asynchronous engine: continuous batching over paged keys and values, on GPUs or a CPU.

The engine computes in processes of its own; here are its front end and its output loop, as in
`vllm serve`. https://docs.vllm.ai (0.32): AsyncLLM, SamplingParams.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from math import nan
from typing import Any, cast

from cluster.engines.engine import EngineFacts
from cluster.engines.language.engine import LanguageSetup, Prompt
from cluster.engines.language.grammar import given_up
from cluster.engines.language.vllm_options import (
    engine_options,
    sampling_options,
    structured_options,
)
from cluster.errors import ConfigError, EngineFailed, InvalidRequest, ModelNotFound, Unsupported
from cluster.generation import (
    Delta,
    EngineLoad,
    FinishReason,
    Sampling,
    ScoredToken,
    TokenScore,
)

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
"""Nothing reaches for a network, and no replica binds itself to cores that others use too."""
GREEDY_BELOW = 1e-5
"""vLLM's own bound: a lower temperature takes the likeliest token."""


class VllmEngine:
    """See `LanguageEngine`."""

    def __init__(self, setup: LanguageSetup) -> None:
        self._setup = setup
        self._engine: Any = None
        self._load = StepCounts()
        self._loras: dict[str, Any] = {}
        self._next_lora_id = 1

    async def start(self) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        os.environ["OMP_NUM_THREADS"] = str(self._setup.threads)
        # Importing vLLM takes half a minute; the loop is Serve's as well.
        await asyncio.to_thread(_import)
        import torch
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        on_gpu = torch.cuda.is_available() and self._setup.device != "cpu"
        try:
            arguments = AsyncEngineArgs(**engine_options(self._setup, on_gpu=on_gpu))
            self._engine = AsyncLLM.from_engine_args(
                arguments, stat_loggers=[_logger_into(self._load)]
            )
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"vLLM refuses the set-up of {self._setup.name!r}: {error}", key="llm"
            ) from None
        self._on_gpu = on_gpu
        lora = self._setup.config.lora
        for adapter in lora.adapters if lora is not None else ():
            await self.add_lora(adapter.name, adapter.path)

    @property
    def facts(self) -> EngineFacts:
        model = self._engine.vllm_config.model_config
        weights = sum(file.stat().st_size for file in self._setup.folder.glob("*.safetensors"))
        return EngineFacts(
            engine="vllm",
            provider="vllm",
            device="cuda" if self._on_gpu else "cpu",
            precision=str(model.dtype).removeprefix("torch."),
            threads=self._setup.threads,
            weight_bytes=weights,
        )

    @property
    def max_model_len(self) -> int:
        return int(self._engine.vllm_config.model_config.max_model_len)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        num_choices = sampling.num_choices
        if num_choices == 1 or sampling.temperature >= GREEDY_BELOW:
            async with aclosing(self._sampled(prompt, sampling)) as deltas:
                async for delta in deltas:
                    yield delta
            return
        # vLLM refuses several greedy choices; they are all the same one.
        one = replace(sampling, num_choices=1)
        async with aclosing(self._sampled(prompt, one)) as deltas:
            async for delta in deltas:
                for index in range(num_choices):
                    yield replace(delta, index=index)

    async def _sampled(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Delta, None]:
        from vllm.exceptions import VLLMClientError
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            parameters = _parameters(sampling)
            outputs = self._engine.generate(
                tokens_input(
                    prompt_token_ids=list(prompt.token_ids), cache_salt=prompt.cache_salt or None
                ),
                parameters,
                prompt.request_id,
                lora_request=self._lora(prompt.lora),
                priority=prompt.priority,
            )
            async with aclosing(outputs):
                scored: set[int] = set()
                async for output in outputs:
                    cached = output.num_cached_tokens or 0
                    for choice in output.outputs:
                        if choice.finish_reason in ("abort", "error"):
                            raise given_up(sampling)
                        delta = _delta(choice, cached)
                        if sampling.scores_prompt and choice.index not in scored:
                            scored.add(choice.index)
                            delta = replace(delta, prompt_scores=_of_prompt(prompt, output))
                        yield delta
        except EngineDeadError:
            raise EngineFailed("the language engine's process is gone") from None
        except EngineGenerateError as error:
            cause = type(error.__cause__ or error).__name__
            raise EngineFailed(f"the language engine failed: {cause}") from None
        except (ValueError, VLLMClientError) as error:
            # vLLM's own checks of sampling values.
            raise InvalidRequest(str(error)) from None

    def load(self) -> EngineLoad:
        return self._load.now()

    def check_health(self) -> None:
        if self._engine is None or self._engine.errored:
            raise EngineFailed("the language engine's process is gone")

    async def add_lora(self, name: str, path: str) -> None:
        if self._setup.config.lora is None:
            raise Unsupported("adapters need `llm.lora` in the configuration")
        from vllm.lora.request import LoRARequest

        number, self._next_lora_id = self._next_lora_id, self._next_lora_id + 1
        # vLLM keeps what it computed by this name: new weights must not meet the old ones' keys.
        request = LoRARequest(lora_name=f"{name}#{number}", lora_int_id=number, lora_path=path)
        try:
            await self._engine.add_lora(request)
        except Exception as error:
            # It is raised in the engine's process and arrives as it likes.
            raise InvalidRequest(f"the adapter {name!r} could not be loaded: {error}") from None
        self._loras[name] = request

    async def remove_lora(self, name: str) -> None:
        request = self._loras.pop(name, None)
        if request is None:
            raise ModelNotFound(f"no adapter {name!r} is loaded")
        await self._engine.remove_lora(request.lora_int_id)

    async def close(self) -> None:
        if self._engine is not None:
            await asyncio.to_thread(self._engine.shutdown)

    def _lora(self, name: str) -> Any:
        if not name:
            return None
        if name not in self._loras:
            raise ModelNotFound(f"no adapter {name!r} is loaded")
        return self._loras[name]


def _import() -> None:
    import vllm.v1.engine.async_llm  # noqa: F401


def _parameters(sampling: Sampling) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    streams = sampling.streams
    options = sampling_options(sampling)
    options["output_kind"] = RequestOutputKind.DELTA if streams else RequestOutputKind.FINAL_ONLY
    if sampling.grammar is not None:
        options["structured_outputs"] = StructuredOutputsParams(
            **structured_options(sampling.grammar)
        )
    return SamplingParams(**options)


def _delta(choice: Any, cached: int) -> Delta:
    scores: tuple[ScoredToken, ...] = ()
    if choice.logprobs is not None:
        pairs = zip(choice.token_ids, choice.logprobs, strict=True)
        scores = tuple(_scored(token_id, found) for token_id, found in pairs)
    return Delta(
        index=choice.index,
        text=choice.text,
        token_ids=tuple(choice.token_ids),
        scores=scores,
        finish_reason=cast(FinishReason, choice.finish_reason or ""),
        num_cached=cached,
    )


def _of_prompt(prompt: Prompt, output: Any) -> tuple[ScoredToken, ...]:
    first = ScoredToken(chosen=TokenScore(token_id=prompt.token_ids[0], logprob=nan))
    pairs = zip(prompt.token_ids[1:], output.prompt_logprobs[1:], strict=True)
    return (first, *(_scored(token_id, found) for token_id, found in pairs))


def _scored(token_id: int, found: Mapping[int, Any]) -> ScoredToken:
    ranked = sorted(found.items(), key=lambda item: -item[1].logprob)
    return ScoredToken(
        chosen=TokenScore(token_id=token_id, logprob=found[token_id].logprob),
        top=tuple(TokenScore(token_id=each, logprob=score.logprob) for each, score in ranked),
    )


class StepCounts:
    """vLLM's own statistics of each step, added up."""

    def __init__(self) -> None:
        self._last: Any = None
        self._queries = 0
        self._hits = 0
        self._preemptions = 0
        self._drafts = 0
        self._accepted = 0

    def add(self, scheduler: Any, iteration: Any) -> None:
        if scheduler is not None:
            self._last = scheduler
            self._queries += scheduler.prefix_cache_stats.queries
            self._hits += scheduler.prefix_cache_stats.hits
            guesses = scheduler.spec_decoding_stats
            if guesses is not None:
                self._drafts += guesses.num_draft_tokens
                self._accepted += guesses.num_accepted_tokens
        if iteration is not None:
            self._preemptions += iteration.num_preempted_reqs

    def now(self) -> EngineLoad:
        last = self._last
        return EngineLoad(
            num_running=last.num_running_reqs if last is not None else 0,
            num_waiting=last.num_waiting_reqs if last is not None else 0,
            kv_usage=last.kv_cache_usage if last is not None else 0.0,
            prefix_queries=self._queries,
            prefix_hits=self._hits,
            preemptions=self._preemptions,
            draft_tokens=self._drafts,
            accepted_tokens=self._accepted,
        )


def _logger_into(load: StepCounts) -> Any:
    """vLLM makes one of these an engine and calls `record` after every step."""
    from vllm.v1.metrics.loggers import StatLoggerBase

    class IntoLoad(StatLoggerBase):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            pass

        def record(
            self,
            scheduler_stats: Any,
            iteration_stats: Any,
            mm_cache_stats: Any = None,
            engine_idx: int = 0,
        ) -> None:
            load.add(scheduler_stats, iteration_stats)

        def log_engine_initialized(self) -> None:
            pass

    return IntoLoad
