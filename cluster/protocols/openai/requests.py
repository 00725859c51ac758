"""The bodies of the OpenAI endpoints, and their checks. Fields that are not here are ignored, as
the public API ignores them; vLLM's extra sampling fields are among them under vLLM's names.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar

import msgspec

from cluster.errors import InvalidRequest
from cluster.protocols.openai.extras import Extras, check_extras, check_template_arguments

MAX_TOP_LOGPROBS = 20
MAX_STOPS = 16
MAX_CHOICES = 128
MAX_BIASES = 1024
MAX_ANSWERS = 2048
"""Choices of one request, of all its prompts."""


class StreamOptions(msgspec.Struct):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class JsonSchemaFormat(msgspec.Struct):
    name: str
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct):
    type: Literal["function"]
    function: Function


class NamedFunction(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct, tag_field="type", tag="function"):
    function: NamedFunction


class AllowedTools(msgspec.Struct):
    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class AllowedToolChoice(msgspec.Struct, tag_field="type", tag="allowed_tools"):
    allowed_tools: AllowedTools


class CalledFunction(msgspec.Struct):
    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None

    @property
    def said(self) -> str:
        return self.text or self.refusal or ""


class Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class SamplingFields(Extras, kw_only=True):
    """What chat and completions have in common."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = 1
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    max_tokens: int | None = None
    user: str | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = False
    priority: int | None = 0
    response_format: ResponseFormat | None = None


class ChatRequest(SamplingFields, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedToolChoice | None = None
    parallel_tool_calls: bool | None = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    echo: bool | None = False


class CompletionRequest(SamplingFields, kw_only=True):
    prompt: str | list[Any]
    logprobs: int | None = None
    echo: bool | None = False
    suffix: str | None = None
    best_of: int | None = None


class TokenizeRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    prompt: str | None = None
    messages: list[Message] | None = None
    tools: list[Tool] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool = False
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    return_token_strs: bool | None = False


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    tokens: list[int]
    model: str = ""


Body = TypeVar("Body", bound=msgspec.Struct)

_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {}
_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


def decode(body: bytes, kind: type[Body]) -> Body:
    """Raises: InvalidRequest naming the field, what was expected and what came."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
    try:
        found: Body = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("the body's JSON is nested too deeply") from None
    if isinstance(found, SamplingFields):
        _check_sampling(found)
    if isinstance(found, ChatRequest):
        _check_chat(found)
    if isinstance(found, CompletionRequest):
        _check_completion(found)
    if isinstance(found, TokenizeRequest):
        check_template_arguments(found.chat_template_kwargs)
    return found


def _invalid(text: str) -> InvalidRequest:
    matched = _AT.search(text)
    if matched is None:
        missing = re.search(r"missing required field `(?P<name>\w+)`", text)
        return InvalidRequest(text, param=missing["name"] if missing else None)
    path = matched["path"].lstrip(".") or None
    said = text[: matched.start()]
    missing = re.search(r"missing required field `(?P<name>\w+)`", said)
    if missing:
        path = f"{path}.{missing['name']}" if path else missing["name"]
    return InvalidRequest(f"{path}: {said}" if path else said, param=path)


def _check_sampling(asked: SamplingFields) -> None:
    _between("temperature", asked.temperature, 0, 2)
    _between("top_p", asked.top_p, 0, 1, excludes_low=True)
    _between("presence_penalty", asked.presence_penalty, -2, 2)
    _between("frequency_penalty", asked.frequency_penalty, -2, 2)
    _between("repetition_penalty", asked.repetition_penalty, 0, 100, excludes_low=True)
    _between("min_p", asked.min_p, 0, 1)
    _between("n", asked.n, 1, MAX_CHOICES)
    # 0 shows and scores a prompt, without an answer.
    echoes = isinstance(asked, CompletionRequest) and bool(asked.echo)
    _between("max_tokens", asked.max_tokens, 0 if echoes else 1, 2**31)
    _between("min_tokens", asked.min_tokens, 0, 2**31)
    _between("seed", asked.seed, -(2**63), 2**63 - 1)
    # V2's meaning, not vLLM's: 1 goes first, 0 is the model's default.
    _between("priority", asked.priority, 0, 2**31)
    check_extras(asked)
    if asked.top_k is not None and asked.top_k < -1:
        raise _wrong("top_k", asked.top_k, "-1 (all) or at least 0")
    stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    if len(stops) > MAX_STOPS:
        raise InvalidRequest(f"stop: at most {MAX_STOPS} strings, got {len(stops)}", param="stop")
    if any(not stop for stop in stops):
        raise InvalidRequest("stop: an empty string would stop everything", param="stop")
    if asked.stream_options is not None and not asked.stream:
        raise InvalidRequest(
            "stream_options is only allowed with stream: true", param="stream_options"
        )
    if asked.logit_bias:
        _check_biases(asked.logit_bias)
    wanted = asked.response_format
    if asked.structured_outputs is not None and wanted is not None and wanted.type != "text":
        raise InvalidRequest(
            "structured_outputs and response_format exclude each other", param="structured_outputs"
        )
    needs_schema = wanted is not None and wanted.type == "json_schema"
    if needs_schema and (wanted.json_schema is None or wanted.json_schema.schema is None):  # type: ignore[union-attr]
        raise InvalidRequest(
            "response_format.json_schema: a schema is needed with type json_schema",
            param="response_format.json_schema",
        )


def _check_biases(biases: dict[str, float]) -> None:
    if len(biases) > MAX_BIASES:
        raise InvalidRequest(f"logit_bias: at most {MAX_BIASES} tokens", param="logit_bias")
    for token, bias in biases.items():
        if not token.isdecimal() or len(token) > 9:
            raise InvalidRequest(
                f"logit_bias: keys are token ids, got {token[:40]!r}", param="logit_bias"
            )
        if not -100 <= bias <= 100:
            raise InvalidRequest(
                f"logit_bias: {bias} for token {token} is not between -100 and 100",
                param="logit_bias",
            )


def _check_chat(asked: ChatRequest) -> None:
    if not asked.messages:
        raise InvalidRequest("messages: at least one is needed", param="messages")
    _between("max_completion_tokens", asked.max_completion_tokens, 1, 2**31)
    _between("top_logprobs", asked.top_logprobs, 0, MAX_TOP_LOGPROBS)
    check_template_arguments(asked.chat_template_kwargs)
    if asked.echo:
        raise InvalidRequest("echo is not supported here: /v1/completions has it", param="echo")
    if asked.top_logprobs is not None and not asked.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    names = [tool.function.name for tool in asked.tools or ()]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
            raise InvalidRequest(
                f"tools: {name[:80]!r} is no function name: letters, digits, '_', '-' and '.', at "
                "most 64",
                param="tools",
            )
    if isinstance(asked.tool_choice, AllowedToolChoice):
        names = _keep_allowed(asked, asked.tool_choice.allowed_tools)
    choice = asked.tool_choice
    if choice in ("auto", "required") and not names:
        raise InvalidRequest(f"tool_choice {choice!r} needs tools", param="tool_choice")
    if isinstance(choice, NamedTool) and choice.function.name not in names:
        raise InvalidRequest(
            f"tool_choice names {choice.function.name!r}, which is not among the tools: "
            f"{', '.join(names) or 'none'}",
            param="tool_choice",
        )
    for index, message in enumerate(asked.messages):
        _check_message(index, message)


def _keep_allowed(asked: ChatRequest, allowed: AllowedTools) -> list[str]:
    """The model hears of these tools alone; their names."""
    names = {each.function.name for each in allowed.tools}
    unknown = sorted(names - {tool.function.name for tool in asked.tools or ()})
    if unknown or not names:
        raise InvalidRequest(
            f"tool_choice.allowed_tools: {', '.join(unknown) or 'none'} of the tools",
            param="tool_choice",
        )
    asked.tools = [tool for tool in asked.tools or () if tool.function.name in names]
    asked.tool_choice = allowed.mode
    return [tool.function.name for tool in asked.tools]


def _check_message(index: int, message: Message) -> None:
    where = f"messages[{index}]"
    # An assistant may have said nothing: histories are sent as they were received.
    if message.content is None and message.role != "assistant":
        raise InvalidRequest(f"{where}: content is needed", param=f"{where}.content")
    if message.role == "tool" and not message.tool_call_id:
        raise InvalidRequest(
            f"{where}: role tool needs tool_call_id", param=f"{where}.tool_call_id"
        )
    if isinstance(message.content, list):
        for part in message.content:
            is_refusal = part.type == "refusal" and message.role == "assistant"
            if (part.type != "text" or part.text is None) and not is_refusal:
                raise InvalidRequest(
                    f"{where}: parts of type {part.type[:40]!r} are not supported; this model "
                    "reads text",
                    param=f"{where}.content",
                )


def _check_completion(asked: CompletionRequest) -> None:
    _between("logprobs", asked.logprobs, 0, MAX_TOP_LOGPROBS)
    if asked.suffix:
        raise InvalidRequest("suffix: this model does not insert text", param="suffix")
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise InvalidRequest("best_of: only the value of n is supported", param="best_of")
    num_choices = len(prompts(asked.prompt)) * (asked.n or 1)
    if num_choices > MAX_ANSWERS:
        raise InvalidRequest(
            f"prompt: at most {MAX_ANSWERS} choices (prompts times n), got {num_choices}",
            param="prompt",
        )


def prompts(prompt: str | list[Any]) -> list[str | list[int]]:
    """Each prompt of the four forms: text, texts, token ids, lists of token ids.

    Raises: InvalidRequest for a mixture or an empty one.
    """
    if isinstance(prompt, str):
        found: list[Any] = [prompt]
    elif prompt and all(type(each) is int for each in prompt):
        found = [prompt]
    else:
        found = list(prompt)
    for each in found:
        is_ids = isinstance(each, list) and each and all(type(entry) is int for entry in each)
        if not (is_ids or isinstance(each, str)):
            raise _wrong_prompt()
        if each == "":
            raise InvalidRequest("prompt: an empty text has nothing to go on", param="prompt")
    if not found or len({type(each) for each in found}) > 1:
        raise _wrong_prompt()
    return found


def _wrong_prompt() -> InvalidRequest:
    return InvalidRequest(
        "prompt: a text, a list of texts, a list of token ids or a list of such lists is needed",
        param="prompt",
    )


def _between(
    name: str, value: float | None, low: float, high: float, *, excludes_low: bool = False
) -> None:
    if value is None:
        return
    if not low <= value <= high or (excludes_low and value == low):
        edge = "above" if excludes_low else "at least"
        raise _wrong(name, value, f"{edge} {_shown(low)} and at most {_shown(high)}")


def _shown(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _wrong(name: str, value: object, allowed: str) -> InvalidRequest:
    return InvalidRequest(f"{name} must be {allowed}, got {value}", param=name)
