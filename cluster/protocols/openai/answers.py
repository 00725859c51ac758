"""Deltas of a language engine as OpenAI's objects: whole answers and the chunks of streams.

Pure: ids and times come in. One `Answer` a request; choices of a prompt are numbered n by n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from typing import Any

from cluster.generation import Delta, FinishReason, ScoredToken, TokenScore
from cluster.protocols.openai.requests import ChatRequest, CompletionRequest, NamedTool
from cluster.protocols.openai.tools import (
    MAX_TOLD,
    Call,
    PlainToolText,
    ToolText,
    demanded_calls,
)

TokenText = Callable[[int], str]
"""A token id as text."""
TokenBytes = Callable[[int], bytes]
"""The same as UTF-8, of which a token may be a part of a character."""


@dataclass(slots=True, kw_only=True)
class Usage:
    """Tokens counted so far."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def as_json(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass(slots=True, kw_only=True)
class _Choice:
    """What a whole answer has of one choice so far. `offset` counts characters."""

    text: str = ""
    scores: list[ScoredToken] = field(default_factory=list)
    finish_reason: str | None = None
    offset: int = 0
    tools: ToolText | PlainToolText | None = None
    num_calls: int = 0
    has_begun: bool = False


class Answer:
    """Of one request: `add` collects, `whole` is the answer, `chunks` are a delta's chunks."""

    def __init__(
        self,
        asked: ChatRequest | CompletionRequest,
        *,
        answer_id: str,
        created_s: int,
        num_choices: int,
        token_text: TokenText,
        token_bytes: TokenBytes | None = None,
        echoes: Sequence[str] = (),
        has_plain_calls: bool = False,
    ) -> None:
        """`has_plain_calls`: the model writes its calls as JSON, without a mark around them."""
        self.usage = Usage()
        self._token_bytes = token_bytes or (lambda token_id: token_text(token_id).encode())
        self._tool_text = PlainToolText if has_plain_calls else ToolText
        self._asked = asked
        self._id = answer_id
        self._created_s = created_s
        self._token_text = token_text
        self._echoes = tuple(echoes)
        self._chat = asked if isinstance(asked, ChatRequest) else None
        self._choices = [_Choice() for _ in range(num_choices)]
        self._named = ""
        self._is_required = False
        if self._chat is not None:
            self._choose_tools(self._chat)

    def _choose_tools(self, asked: ChatRequest) -> None:
        if isinstance(asked.tool_choice, NamedTool):
            self._named = asked.tool_choice.function.name
        elif asked.tool_choice == "required":
            self._is_required = True
        elif asked.tools and asked.tool_choice != "none":
            names = [tool.function.name for tool in asked.tools]
            most = 1 if asked.parallel_tool_calls is False else MAX_TOLD
            for choice in self._choices:
                choice.tools = self._tool_text(names, most=most)

    def counted(self, delta: Delta) -> Delta:
        """The delta as it is told, its tokens counted: nothing new to who asked for no tokens."""
        if self._asked.max_tokens == 0:
            reason: FinishReason = "length" if delta.finish_reason else ""
            delta = replace(delta, text="", token_ids=(), scores=(), finish_reason=reason)
        self.usage.completion_tokens += len(delta.token_ids)
        return delta

    def add(self, index: int, delta: Delta) -> None:
        """Collect for `whole`."""
        choice = self._choices[index]
        choice.text += delta.text
        choice.scores += (*delta.prompt_scores, *delta.scores)
        if delta.finish_reason:
            choice.finish_reason = delta.finish_reason

    def whole(self) -> dict[str, Any]:
        choices = enumerate(self._choices)
        if self._chat is not None:
            shown = [self._whole_message(index, choice) for index, choice in choices]
            kind = "chat.completion"
        else:
            shown = [self._whole_text(index, choice) for index, choice in choices]
            kind = "text_completion"
        return {**self._head(kind), "choices": shown, "usage": self.usage.as_json()}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created_s,
            "model": self._asked.model,
        }

    def _whole_message(self, index: int, choice: _Choice) -> dict[str, Any]:
        said, calls = self._split(choice, choice.text, is_last=True)
        message: dict[str, Any] = {"role": "assistant", "content": said or None, "refusal": None}
        if not calls:
            message["content"] = said
        else:
            message["tool_calls"] = [
                self._call(index, number, call) for number, call in enumerate(calls)
            ]
        choice.num_calls = len(calls)
        return {
            "index": index,
            "message": message,
            "logprobs": self._chat_logprobs(choice.scores),
            "finish_reason": self._reason(choice, choice.finish_reason),
        }

    def _split(self, choice: _Choice, text: str, *, is_last: bool) -> tuple[str, list[Call]]:
        if self._named:
            return "", [Call(name=self._named, arguments=text)]
        if self._is_required:
            calls = demanded_calls(text)
            return ("" if calls else text), calls
        if choice.tools is None:
            return text, []
        return choice.tools.add(text, is_last=is_last)

    def _call(self, index: int, number: int, call: Call) -> dict[str, Any]:
        function = {"name": call.name, "arguments": call.arguments}
        return {"id": self._call_id(index, number), "type": "function", "function": function}

    def _call_id(self, index: int, number: int) -> str:
        return f"call_{self._id.partition('-')[2]}_{index}_{number}"

    def _reason(self, choice: _Choice, reason: str | None) -> str | None:
        # A function that was demanded by name ends with `stop`, as the API reference has it.
        if choice.num_calls and reason == "stop" and not self._named:
            return "tool_calls"
        return reason

    def _whole_text(self, index: int, choice: _Choice) -> dict[str, Any]:
        echo = self._echo(index)
        return {
            "index": index,
            "text": echo + choice.text,
            "logprobs": self._text_logprobs(choice, choice.scores),
            "finish_reason": choice.finish_reason,
        }

    def _echo(self, index: int) -> str:
        return self._echoes[index // (self._asked.n or 1)] if self._echoes else ""

    def begin(self) -> list[dict[str, Any]]:
        """The chunks before any token: a chat's roles."""
        if self._chat is None:
            return []
        role = {"role": "assistant", "content": ""}
        return [self._chunk(index, role, None) for index in range(len(self._choices))]

    def chunks(self, index: int, delta: Delta) -> list[dict[str, Any]]:
        choice = self._choices[index]
        if self._chat is None:
            return self._text_chunks(index, choice, delta)
        is_last = bool(delta.finish_reason)
        found: list[dict[str, Any]] = []
        logprobs = self._chat_logprobs(delta.scores)
        for change in self._changes(index, choice, delta, is_last=is_last):
            found.append(self._chunk(index, change, None, logprobs))
            logprobs = None
        if is_last:
            reason = self._reason(choice, delta.finish_reason)
            if found and "content" in found[-1]["choices"][0]["delta"]:
                found[-1]["choices"][0]["finish_reason"] = reason
            else:
                found.append(self._chunk(index, {}, reason, logprobs))
        elif logprobs is not None:
            found.append(self._chunk(index, {"content": ""}, None, logprobs))
        return found

    def _changes(
        self, index: int, choice: _Choice, delta: Delta, *, is_last: bool
    ) -> list[dict[str, Any]]:
        if self._named:
            return self._named_changes(index, choice, delta.text)
        if self._is_required:
            choice.text += delta.text
            if not is_last:
                return []
            said, calls = self._split(choice, choice.text, is_last=True)
        else:
            said, calls = self._split(choice, delta.text, is_last=is_last)
        changes: list[dict[str, Any]] = [{"content": said}] if said else []
        for call in calls:
            number, choice.num_calls = choice.num_calls, choice.num_calls + 1
            first = {"index": number, **self._call(index, number, call)}
            first["function"] = {"name": call.name, "arguments": ""}
            rest = {"index": number, "function": {"arguments": call.arguments}}
            changes += [{"tool_calls": [first]}, {"tool_calls": [rest]}]
        return changes

    def _named_changes(self, index: int, choice: _Choice, piece: str) -> list[dict[str, Any]]:
        changes = []
        if not choice.has_begun:
            choice.has_begun = True
            choice.num_calls = 1
            first = {"index": 0, **self._call(index, 0, Call(name=self._named, arguments=""))}
            changes.append({"tool_calls": [first]})
        if piece:
            rest = {"index": 0, "function": {"arguments": piece}}
            changes.append({"tool_calls": [rest]})
        return changes

    def _text_chunks(self, index: int, choice: _Choice, delta: Delta) -> list[dict[str, Any]]:
        text = delta.text
        if not choice.has_begun:
            choice.has_begun = True
            text = self._echo(index) + text
        if not (text or delta.finish_reason or delta.scores):
            return []
        one = {
            "index": index,
            "text": text,
            "logprobs": self._text_logprobs(choice, (*delta.prompt_scores, *delta.scores)),
            "finish_reason": delta.finish_reason or None,
        }
        return [{**self._head("text_completion"), "choices": [one], **self._usage_so_far()}]

    def _chunk(
        self,
        index: int,
        change: dict[str, Any],
        reason: str | None,
        logprobs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        one = {"index": index, "delta": change, "logprobs": logprobs, "finish_reason": reason}
        return {
            **self._head("chat.completion.chunk"),
            "choices": [one],
            **self._usage_so_far(),
        }

    def _usage_so_far(self) -> dict[str, Any]:
        options = self._asked.stream_options
        if options is None or not options.include_usage:
            return {}
        return {"usage": self.usage.as_json() if options.continuous_usage_stats else None}

    def last_chunk(self) -> dict[str, Any] | None:
        """The usage in a chunk of its own, for who asked for it."""
        options = self._asked.stream_options
        if options is None or not options.include_usage:
            return None
        kind = "chat.completion.chunk" if self._chat is not None else "text_completion"
        return {**self._head(kind), "choices": [], "usage": self.usage.as_json()}

    def _chat_logprobs(self, scores: Sequence[ScoredToken]) -> dict[str, Any] | None:
        if self._chat is None or not self._chat.logprobs:
            return None
        num_top = self._chat.top_logprobs or 0
        return {
            "content": [
                {
                    **self._token(each.chosen),
                    "top_logprobs": [self._token(top) for top in each.top[:num_top]],
                }
                for each in scores
            ],
            "refusal": None,
        }

    def _token(self, score: TokenScore) -> dict[str, Any]:
        text = self._token_text(score.token_id)
        logprob = max(score.logprob, -9999.0)
        return {"token": text, "logprob": logprob, "bytes": list(self._token_bytes(score.token_id))}

    def _text_logprobs(
        self, choice: _Choice, scores: Sequence[ScoredToken]
    ) -> dict[str, Any] | None:
        if self._chat is not None or self._asked.logprobs is None:
            return None
        tokens = [self._token_text(each.chosen.token_id) for each in scores]
        offsets = []
        for token in tokens:
            offsets.append(choice.offset)
            choice.offset += len(token)
        num_top = int(self._asked.logprobs)
        return {
            "tokens": tokens,
            "token_logprobs": [
                None if isnan(each.chosen.logprob) else max(each.chosen.logprob, -9999.0)
                for each in scores
            ],
            "top_logprobs": [
                None
                if isnan(each.chosen.logprob)
                else {
                    self._token_text(top.token_id): max(top.logprob, -9999.0)
                    for top in each.top[:num_top]
                }
                for each in scores
            ],
            "text_offset": offsets,
        }
