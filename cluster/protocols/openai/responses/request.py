"""The body of /v1/responses, and the chat that answers it.

Answers are not stored: a conversation goes on by sending its items again, and a replica that holds
them in its prefix cache does not compute them again. Fields that need a store, and tools that run
on OpenAI's servers, are refused by name. Source: API reference, "Create a model response".
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from cluster.errors import InvalidRequest, SquadronError
from cluster.protocols.openai.extras import Extras
from cluster.protocols.openai.requests import decode
from cluster.protocols.openai.responses.items import messages_of

LOGPROBS = "message.output_text.logprobs"
MAX_METADATA = 16
_NEED_A_STORE = ("previous_response_id", "conversation", "prompt")
_AS_IN_CHAT = (
    *Extras.__struct_fields__,
    "model", "stream", "temperature", "top_p", "seed", "stop", "presence_penalty",
    "frequency_penalty", "logit_bias", "top_k", "min_p", "repetition_penalty", "min_tokens",
    "stop_token_ids", "ignore_eos", "priority", "parallel_tool_calls", "chat_template_kwargs",
    "user",
)  # fmt: skip
_PARAMS = {
    "messages": "input",
    "prompt": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "logprobs": "include",
    "truncate_prompt_tokens": "truncation",
}
"""How a chat's fields are called here."""


class TextFormat(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextSettings(msgspec.Struct):
    format: TextFormat | None = None


class FunctionTool(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponsesRequest(Extras, kw_only=True):
    """`store` may be said, and is answered with false."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    stream: bool | None = False
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    text: TextSettings | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = True
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    background: bool | None = False
    user: str | None = None
    safety_identifier: str | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    priority: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    previous_response_id: Any = None
    conversation: Any = None
    prompt: Any = None


def read(body: bytes) -> ResponsesRequest:
    """Raises: InvalidRequest naming the field."""
    asked = decode(body, ResponsesRequest)
    for name in _NEED_A_STORE:
        if getattr(asked, name) is not None:
            raise InvalidRequest(
                f"{name} is not supported: nothing is stored here; send the conversation's items "
                "in input",
                param=name,
            )
    if asked.background:
        raise InvalidRequest(
            "background is not supported: nothing is stored here; read the answer as a stream",
            param="background",
        )
    if asked.max_output_tokens is not None and asked.max_output_tokens < 1:
        raise InvalidRequest(
            f"max_output_tokens must be at least 1, got {asked.max_output_tokens}",
            param="max_output_tokens",
        )
    if len(asked.metadata or {}) > MAX_METADATA:
        raise InvalidRequest(f"metadata: at most {MAX_METADATA} pairs", param="metadata")
    return asked


def chat_of(asked: ResponsesRequest) -> dict[str, Any]:
    """The body of /v1/chat/completions that asks for the same. Raises: InvalidRequest."""
    chat = {
        name: msgspec.to_builtins(value)
        for name in _AS_IN_CHAT
        if (value := getattr(asked, name)) is not None
    }
    chat["messages"] = messages_of(asked.input, asked.instructions)
    if asked.max_output_tokens is not None:
        chat["max_completion_tokens"] = asked.max_output_tokens
    if asked.stream:
        chat["stream_options"] = {"include_usage": True}
    if asked.truncation == "auto" and asked.truncate_prompt_tokens is None:
        chat["truncate_prompt_tokens"] = -1
    if asked.top_logprobs is not None or LOGPROBS in (asked.include or ()):
        chat["logprobs"] = True
        chat["top_logprobs"] = asked.top_logprobs or 0
    if asked.tools:
        chat["tools"] = [_tool(tool, f"tools[{n}]") for n, tool in enumerate(asked.tools)]
    if asked.tool_choice is not None:
        chat["tool_choice"] = _choice(asked.tool_choice)
    if asked.text is not None and asked.text.format is not None:
        chat["response_format"] = _format(asked.text.format)
    return chat


def written(content: Any) -> bytes:
    """JSON, whatever a caller's schema holds: numbers of any size, any depth that was read.

    Raises: InvalidRequest.
    """
    try:
        return msgspec.json.encode(content)
    except RecursionError:
        raise InvalidRequest("the body's JSON is nested too deeply") from None


def own_names(error: SquadronError) -> SquadronError:
    """An error of the chat, about the field that the caller wrote."""
    param = str(error.details.get("param") or "")
    name = _PARAMS.get(param.partition(".")[0].partition("[")[0])
    if name is None:
        return error
    return type(error)(error.message, **{**error.details, "param": name})


def _tool(tool: dict[str, Any], where: str) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise InvalidRequest(
            f"{where}: tools of type {str(tool.get('type'))[:40]!r} are not supported: this server "
            "runs none; allowed: function",
            param="tools",
        )
    try:
        function = msgspec.convert(tool, FunctionTool)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{where}: {error}", param="tools") from None
    fields = {name: value for name, value in msgspec.structs.asdict(function).items() if value}
    return {"type": "function", "function": fields}


def _choice(choice: str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            raise InvalidRequest(
                f"tool_choice must be none, auto, required or name a function, got {choice[:40]!r}",
                param="tool_choice",
            )
        return choice
    kind = choice.get("type")
    if kind == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if kind == "allowed_tools":
        named = choice.get("tools")
        tools = [
            {"type": "function", "function": {"name": tool.get("name")}}
            for tool in (named if isinstance(named, list) else ())
            if isinstance(tool, dict)
        ]
        allowed = {"mode": choice.get("mode", "auto"), "tools": tools}
        return {"type": "allowed_tools", "allowed_tools": allowed}
    raise InvalidRequest(
        f"tool_choice of type {str(kind)[:40]!r} is not supported; allowed: function, "
        "allowed_tools",
        param="tool_choice",
    )


def _format(wanted: TextFormat) -> dict[str, Any]:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    if wanted.schema is None:
        raise InvalidRequest(
            "text.format.schema: a schema is needed with type json_schema", param="text.format"
        )
    shape = {"name": wanted.name or "answer", "schema": wanted.schema, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": shape}
