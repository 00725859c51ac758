"""The `input` of /v1/responses as a chat's messages.

What a model of text cannot read (pictures, files, items of tools that run on OpenAI's servers) is
refused by name. Source: API reference, "Create a model response", `input`.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from cluster.errors import InvalidRequest

_TEXTS = ("input_text", "output_text", "text", "refusal")
_KINDS = ("message", "function_call", "function_call_output", "reasoning")


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None


class _Message(msgspec.Struct):
    role: Literal["user", "system", "developer", "assistant"]
    content: str | list[_Part]


class _Call(msgspec.Struct):
    call_id: str
    name: str
    arguments: str


class _Output(msgspec.Struct):
    call_id: str
    output: str | list[_Part]


_Shape = TypeVar("_Shape", bound=msgspec.Struct)


def messages_of(
    given: str | list[dict[str, Any]], instructions: str | None
) -> list[dict[str, Any]]:
    """`instructions` first, as the system's word; the calls of one turn are one message.

    Raises: InvalidRequest naming the item.
    """
    found: list[dict[str, Any]] = []
    if instructions:
        found.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*found, {"role": "user", "content": given}]
    if not given:
        raise InvalidRequest("input: at least one item is needed", param="input")
    for index, item in enumerate(given):
        _add(found, item, f"input[{index}]")
    return found


def _add(found: list[dict[str, Any]], item: dict[str, Any], where: str) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        message = _shaped(item, _Message, where)
        found.append({"role": message.role, "content": _text(message.content, where)})
    elif kind == "function_call":
        _add_call(found, _shaped(item, _Call, where))
    elif kind == "function_call_output":
        output = _shaped(item, _Output, where)
        text = _text(output.output, where)
        found.append({"role": "tool", "tool_call_id": output.call_id, "content": text})
    elif kind == "item_reference":
        raise InvalidRequest(
            f"{where}: nothing is stored here, so an item cannot be named by its id: send it whole",
            param="input",
        )
    elif kind != "reasoning":
        # What an earlier answer thought is not shown to the model again.
        raise InvalidRequest(
            f"{where}: items of type {str(kind)[:40]!r} are not supported; allowed: "
            f"{', '.join(_KINDS)}",
            param="input",
        )


def _add_call(found: list[dict[str, Any]], call: _Call) -> None:
    function = {"name": call.name, "arguments": call.arguments}
    shown = {"id": call.call_id, "type": "function", "function": function}
    if found and found[-1]["role"] == "assistant":
        found[-1].setdefault("tool_calls", []).append(shown)
    else:
        found.append({"role": "assistant", "content": None, "tool_calls": [shown]})


def _text(content: str | list[_Part], where: str) -> str:
    if isinstance(content, str):
        return content
    for part in content:
        if part.type not in _TEXTS or (part.text is None and part.refusal is None):
            raise InvalidRequest(
                f"{where}: parts of type {part.type[:40]!r} are not supported; this model reads "
                "text",
                param="input",
            )
    return "".join(part.text or part.refusal or "" for part in content)


def _shaped(item: dict[str, Any], shape: type[_Shape], where: str) -> _Shape:
    try:
        return msgspec.convert(item, shape)
    except msgspec.ValidationError as error:
        said = str(error).replace("`$.", "`").replace(" - at `$`", "")
        raise InvalidRequest(f"{where}: {said}", param="input") from None
