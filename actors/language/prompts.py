"""Requests of the OpenAI endpoints as token ids for an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from cluster.engines.language.tokens import MAX_CHARS_PER_TOKEN, ModelTokenizer
from cluster.errors import InvalidRequest
from cluster.protocols.openai.requests import (
    ChatRequest,
    CompletionRequest,
    Message,
    SamplingFields,
    TokenizeRequest,
    Tool,
    prompts,
)
from cluster.protocols.openai.sampling import max_tokens_of
from cluster.protocols.openai.tools import arguments_of, called, tool_dicts, tool_prompt

MAX_CHARS_IN_LOOP = 20_000
"""Longer texts are tokenised in a thread: about 2 ms of the loop's time otherwise."""


class PromptMaker:
    """Of one model."""

    def __init__(self, tokenizer: ModelTokenizer, max_model_len: int) -> None:
        self.tokenizer = tokenizer
        self._max_model_len = max_model_len
        self._max_chars = max_model_len * MAX_CHARS_PER_TOKEN

    async def of_chat(self, asked: ChatRequest) -> list[int]:
        text = self._rendered(
            asked.messages,
            () if asked.tool_choice == "none" else asked.tools or (),
            add_generation_prompt=asked.add_generation_prompt,
            continue_final_message=asked.continue_final_message,
            extra=asked.chat_template_kwargs,
        )
        # The template writes the special tokens itself.
        special = bool(asked.add_special_tokens)
        ids = await self._encode(text, add_special_tokens=special, param="messages")
        return self._cut(ids, asked)

    async def of_completion(self, asked: CompletionRequest) -> list[list[int]]:
        found = []
        given = prompts(asked.prompt)
        num_chars = sum(len(each) for each in given if isinstance(each, str))
        for prompt in given:
            if isinstance(prompt, str):
                ids = await self._encode(
                    prompt,
                    add_special_tokens=asked.add_special_tokens is not False,
                    param="prompt",
                    is_short=num_chars <= MAX_CHARS_IN_LOOP,
                )
            else:
                ids = prompt
                self.tokenizer.check(ids)
            found.append(self._cut(ids, asked))
        return found

    async def of_tokenize(self, asked: TokenizeRequest) -> list[int]:
        if (asked.prompt is None) == (asked.messages is None):
            raise InvalidRequest("exactly one of prompt and messages is needed", param="prompt")
        if asked.prompt is not None:
            return await self._encode(
                asked.prompt, add_special_tokens=asked.add_special_tokens, param="prompt"
            )
        text = self._rendered(
            asked.messages or [],
            asked.tools or [],
            add_generation_prompt=asked.add_generation_prompt,
            continue_final_message=asked.continue_final_message,
            extra=asked.chat_template_kwargs,
        )
        return await self._encode(text, add_special_tokens=False, param="messages")

    def _rendered(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
        extra: dict[str, Any] | None,
    ) -> str:
        plain = _plain(messages, has_tools=self.tokenizer.has_tools)
        shown: list[dict[str, Any]] = []
        if tools and self.tokenizer.has_tools:
            shown = tool_dicts(tools)
        elif tools:
            plain = _told_of(tool_prompt(tools), plain)
        return self.tokenizer.render(
            plain,
            tools=shown,
            add_generation_prompt=add_generation_prompt and not continue_final_message,
            continue_final_message=continue_final_message,
            extra=extra,
        )

    def _cut(self, ids: list[int], asked: SamplingFields) -> list[int]:
        """The last tokens, as many as `truncate_prompt_tokens` says."""
        kept = asked.truncate_prompt_tokens
        if kept is None:
            return ids
        if kept == -1:
            kept = max(1, self._max_model_len - max(1, max_tokens_of(asked) or 1))
        return ids[-kept:]

    async def _encode(
        self, text: str, *, add_special_tokens: bool, param: str, is_short: bool = True
    ) -> list[int]:
        if len(text) > self._max_chars:
            raise InvalidRequest(
                f"{len(text)} characters cannot fit this model's maximum context length",
                param=param,
                openai_code="context_length_exceeded",
            )
        encode = self.tokenizer.encode
        if len(text) > MAX_CHARS_IN_LOOP or not is_short:
            return await asyncio.to_thread(encode, text, add_special_tokens=add_special_tokens)
        return encode(text, add_special_tokens=add_special_tokens)


def _plain(messages: Sequence[Message], *, has_tools: bool) -> list[dict[str, Any]]:
    """As chat templates want them: text contents, and calls as the template can show them."""
    found = []
    for message in messages:
        role = "system" if message.role == "developer" else message.role
        plain: dict[str, Any] = {"role": role, "content": _text(message)}
        if message.name:
            plain["name"] = message.name
        if message.tool_call_id:
            plain["tool_call_id"] = message.tool_call_id
        for call in message.tool_calls or ():
            if has_tools:
                # Templates write arguments with `tojson`: a text would be quoted once more.
                arguments = arguments_of(call.function.arguments)
                function = {"name": call.function.name, "arguments": arguments}
                plain.setdefault("tool_calls", []).append(
                    {"id": call.id, "type": "function", "function": function}
                )
            else:
                plain["content"] = called(
                    plain["content"], call.function.arguments, call.function.name
                )
        found.append(plain)
    return found


def _text(message: Message) -> str:
    if isinstance(message.content, list):
        return "".join(part.said for part in message.content)
    return message.content or ""


def _told_of(tools: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{tools}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": tools}, *messages]
