"""Functions that a model may call: how they get into the prompt and out of the text.

Where the model's chat template knows tools it writes them itself; elsewhere they are told in the
form of NousResearch's Hermes models, `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, which
most open models have seen. A call that is demanded (`required`, or a named one) is held to the
function's schema while it is generated, so its arguments always fit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.generation import Grammar
from cluster.protocols.openai.requests import ChatRequest, NamedTool, Tool

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
MAX_CALLS = 8
"""Calls of one answer; a small model would otherwise fill its context with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """`arguments` is JSON as text."""

    name: str
    arguments: str


def tool_grammar(asked: ChatRequest) -> Grammar | None:
    """What the text must be when a call is demanded: the named function's arguments, or a list."""
    tools = asked.tools or []
    choice = asked.tool_choice
    if isinstance(choice, NamedTool):
        named = next(tool for tool in tools if tool.function.name == choice.function.name)
        return Grammar(kind="json_schema", text=json.dumps(_parameters(named)))
    if choice != "required":
        return None
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.function.name},
                "arguments": _parameters(tool),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    most = 1 if asked.parallel_tool_calls is False else MAX_CALLS
    schema = {"type": "array", "items": {"anyOf": calls}, "minItems": 1, "maxItems": most}
    return Grammar(kind="json_schema", text=json.dumps(schema))


def _parameters(tool: Tool) -> dict[str, Any]:
    return tool.function.parameters or {"type": "object", "additionalProperties": False}


def tool_dicts(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """As chat templates and prompts show them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.function.name,
                "description": tool.function.description or "",
                "parameters": _parameters(tool),
            },
        }
        for tool in tools
    ]


def tool_prompt(tools: Sequence[Tool]) -> str:
    """The system text that tells a model of its functions (Hermes' wording)."""
    shown = "\n".join(json.dumps(each) for each in tool_dicts(tools))
    return (
        "You may call one or more functions to assist with the user query.\n"
        f"<tools>\n{shown}\n</tools>\n"
        "For each function call, return a JSON object with function name and arguments within "
        f'{OPEN}{CLOSE} tags:\n{OPEN}{{"name": <function-name>, "arguments": <args-json-object>}}'
        f"{CLOSE}"
    )


def called(text: str, arguments: str, name: str) -> str:
    """A call that the model made earlier, as it would have written it."""
    try:
        parsed = json.loads(arguments)
    except ValueError:
        parsed = arguments
    return f"{text}{OPEN}{json.dumps({'name': name, 'arguments': parsed})}{CLOSE}"


def demanded_calls(text: str) -> list[Call]:
    """The calls of a `required` answer; none when it was cut short."""
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [Call(name=each["name"], arguments=json.dumps(each["arguments"])) for each in found]


class ToolText:
    """Splits generated text into what is said and the calls in it, piece by piece."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._held = ""
        self._is_inside = False

    def add(self, piece: str, *, is_last: bool = False) -> tuple[str, list[Call]]:
        """The text and the calls that are certain now. What looks like a call of an unknown
        function, or is no JSON, is text."""
        self._held += piece
        said = ""
        calls: list[Call] = []
        while True:
            mark = CLOSE if self._is_inside else OPEN
            before, found, after = self._held.partition(mark)
            if not found:
                break
            if not self._is_inside:
                said += before
            else:
                call = self._parse(before)
                if call is None:
                    said += OPEN + before + CLOSE
                else:
                    calls.append(call)
            self._is_inside = not self._is_inside
            self._held = after
        if is_last:
            said += (OPEN if self._is_inside else "") + self._held
            self._held = ""
        elif not self._is_inside:
            keep = _overlap(self._held, OPEN)
            cut = len(self._held) - keep
            said, self._held = said + self._held[:cut], self._held[cut:]
        return said, calls

    def _parse(self, text: str) -> Call | None:
        try:
            found = json.loads(text)
        except ValueError:
            return None
        if not isinstance(found, dict) or found.get("name") not in self._names:
            return None
        arguments = found.get("arguments", found.get("parameters", {}))
        shown = arguments if isinstance(arguments, str) else json.dumps(arguments)
        return Call(name=found["name"], arguments=shown)


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of `text` may be the beginning of `mark`."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0
