"""The OpenAI endpoints of one language model's replica: bodies in, answers and events out."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson

from actors.language.gate import Turnstile
from actors.language.prompts import PromptMaker
from actors.language.watch import Watch
from cluster.config.language.settings import LanguageConfig
from cluster.engines.language.engine import LanguageEngine, Prompt
from cluster.engines.language.grammar import compile_grammar
from cluster.errors import InvalidRequest
from cluster.generation import Delta, Sampling
from cluster.protocols.openai.answers import Answer, Usage
from cluster.protocols.openai.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
    decode,
    prompts,
)
from cluster.protocols.openai.sampling import sampling_of

DONE = b"data: [DONE]\n\n"


@dataclass(slots=True, kw_only=True)
class Order:
    """What a call says beside its body: the adapter, the priority level (1 goes first), and where
    its tokens are counted."""

    lora: str = ""
    level: int = 1
    used: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One prompt of a request; its choices are numbered from `first`."""

    prompt: Prompt
    first: int


class OpenAiEndpoints:
    """`turns`: who may go to the engine, and when."""

    def __init__(
        self,
        engine: LanguageEngine,
        maker: PromptMaker,
        config: LanguageConfig,
        turns: Turnstile,
        watch: Watch,
        *,
        adapter: Callable[[str], Any],
    ) -> None:
        self._engine = engine
        self._maker = maker
        self._config = config
        self._turns = turns
        self._watch = watch
        self._adapter = adapter

    async def chat(self, body: bytes, order: Order) -> AsyncGenerator[bytes, None]:
        asked = decode(body, ChatRequest)
        ids = await self._maker.of_chat(asked)
        async with aclosing(self._answer(asked, [ids], "chatcmpl", order)) as parts:
            async for part in parts:
                yield part

    async def completions(self, body: bytes, order: Order) -> AsyncGenerator[bytes, None]:
        asked = decode(body, CompletionRequest)
        ids = await self._maker.of_completion(asked)
        async with aclosing(self._answer(asked, ids, "cmpl", order)) as parts:
            async for part in parts:
                yield part

    async def tokenize(self, body: bytes) -> AsyncGenerator[bytes, None]:
        asked = decode(body, TokenizeRequest)
        ids = await self._maker.of_tokenize(asked)
        strings = None
        if asked.return_token_strs:
            strings = [self._maker.tokenizer.token_text(each) for each in ids]
        content = {
            "count": len(ids),
            "max_model_len": self._engine.max_model_len,
            "tokens": ids,
            "token_strs": strings,
        }
        yield orjson.dumps(content)

    async def detokenize(self, body: bytes) -> AsyncGenerator[bytes, None]:
        asked = decode(body, DetokenizeRequest)
        yield orjson.dumps({"prompt": self._maker.tokenizer.decode(asked.tokens)})

    async def text(self, asked: CompletionRequest, order: Order) -> AsyncGenerator[str, None]:
        """V2's way: pieces of text alone."""
        (ids,) = await self._maker.of_completion(asked)
        order.used.prompt_tokens = len(ids)
        sampling = await self._sampled(asked, ids)
        await self._adapter(order.lora)
        job = self._job(ids, 0, asked, order)
        async with aclosing(self._deltas([job], sampling, order)) as deltas:
            async for _, delta in deltas:
                order.used.completion_tokens += len(delta.token_ids)
                if delta.text or delta.finish_reason:
                    yield delta.text

    async def _answer(
        self,
        asked: ChatRequest | CompletionRequest,
        ids: list[list[int]],
        kind: str,
        order: Order,
    ) -> AsyncGenerator[bytes, None]:
        sampling = await self._sampled(asked, max(ids, key=len))
        await self._adapter(order.lora)
        jobs = [
            self._job(each, number * sampling.num_choices, asked, order)
            for number, each in enumerate(ids)
        ]
        answer = Answer(
            asked,
            answer_id=f"{kind}-{uuid.uuid4().hex}",
            created_s=int(time.time()),
            num_choices=len(jobs) * sampling.num_choices,
            token_text=self._maker.tokenizer.token_text,
            token_bytes=self._maker.tokenizer.token_bytes,
            has_plain_calls=self._maker.tokenizer.has_plain_calls,
            echoes=self._echoes(asked),
        )
        answer.usage = order.used
        answer.usage.prompt_tokens = sum(len(each) for each in ids)
        parts = self._events if sampling.streams else self._whole
        async with aclosing(parts(answer, jobs, sampling, order)) as found:
            async for part in found:
                yield part

    async def _whole(
        self, answer: Answer, jobs: Sequence[_Job], sampling: Sampling, order: Order
    ) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._deltas(jobs, sampling, order)) as deltas:
            async for index, delta in deltas:
                delta = answer.counted(delta)
                answer.usage.cached_tokens = max(answer.usage.cached_tokens, delta.num_cached)
                answer.add(index, delta)
        yield orjson.dumps(answer.whole())

    async def _events(
        self, answer: Answer, jobs: Sequence[_Job], sampling: Sampling, order: Order
    ) -> AsyncGenerator[bytes, None]:
        """Nothing before the engine has accepted the request: until then an error has a status."""
        beginning = b"".join(_event(chunk) for chunk in answer.begin())
        async with aclosing(self._deltas(jobs, sampling, order)) as deltas:
            async for index, delta in deltas:
                delta = answer.counted(delta)
                answer.usage.cached_tokens = max(answer.usage.cached_tokens, delta.num_cached)
                part = beginning + b"".join(map(_event, answer.chunks(index, delta)))
                beginning = b""
                if part:
                    yield part
        last = answer.last_chunk()
        yield (_event(last) if last is not None else b"") + DONE

    async def _sampled(
        self, asked: ChatRequest | CompletionRequest, longest: list[int]
    ) -> Sampling:
        if not longest:
            raise InvalidRequest("the prompt has no tokens", param="prompt")
        sampling = sampling_of(
            asked,
            num_prompt_tokens=len(longest),
            max_model_len=self._engine.max_model_len,
            default_max_tokens=self._config.default_max_tokens,
            vocab_size=self._maker.tokenizer.vocab_size,
        )
        if sampling.grammar is not None:
            # vLLM would find out in its engine; the request must not get that far.
            await asyncio.to_thread(compile_grammar, sampling.grammar)
        return sampling

    def _job(
        self, ids: list[int], first: int, asked: ChatRequest | CompletionRequest, order: Order
    ) -> _Job:
        prompt = Prompt(
            request_id=uuid.uuid4().hex,
            token_ids=tuple(ids),
            lora=order.lora,
            cache_salt=asked.cache_salt or "",
        )
        return _Job(prompt=prompt, first=first)

    def _echoes(self, asked: ChatRequest | CompletionRequest) -> list[str]:
        if not isinstance(asked, CompletionRequest) or not asked.echo:
            return []
        decode_ids = self._maker.tokenizer.decode
        return [
            each if isinstance(each, str) else decode_ids(each) for each in prompts(asked.prompt)
        ]

    async def _deltas(
        self, jobs: Sequence[_Job], sampling: Sampling, order: Order
    ) -> AsyncGenerator[tuple[int, Delta], None]:
        num_choices = len(jobs) * sampling.num_choices
        num_prompt_tokens = sum(len(job.prompt.token_ids) for job in jobs)
        num_tokens = num_prompt_tokens + num_choices * sampling.max_tokens
        arrived_s = time.perf_counter()
        async with self._turns.turn(
            num_choices=num_choices, num_tokens=num_tokens, level=order.level
        ):
            found = (
                self._of_one(jobs[0], sampling)
                if len(jobs) == 1
                else _merged([self._of_one(job, sampling) for job in jobs])
            )
            watched = self._watch.request(arrived_s, num_prompt_tokens, sampling)
            async with aclosing(found) as deltas:
                async for index, delta in deltas:
                    watched.saw(index, delta)
                    yield index, delta

    async def _of_one(
        self, job: _Job, sampling: Sampling
    ) -> AsyncGenerator[tuple[int, Delta], None]:
        async with aclosing(self._engine.generate(job.prompt, sampling)) as deltas:
            async for delta in deltas:
                yield job.first + delta.index, delta


async def _merged(
    sources: Sequence[AsyncGenerator[tuple[int, Delta], None]],
) -> AsyncGenerator[tuple[int, Delta], None]:
    """What the sources give, as it comes; the first error ends all of them."""
    found: asyncio.Queue[tuple[int, Delta] | Exception | None] = asyncio.Queue()

    async def follow(source: AsyncGenerator[tuple[int, Delta], None]) -> None:
        try:
            async with aclosing(source) as items:
                async for item in items:
                    found.put_nowait(item)
            found.put_nowait(None)
        except Exception as error:
            # Whatever it is: who reads waits for this source as well.
            found.put_nowait(error)

    tasks = [asyncio.ensure_future(follow(source)) for source in sources]
    try:
        num_open = len(tasks)
        while num_open:
            item = await found.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                num_open -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"
