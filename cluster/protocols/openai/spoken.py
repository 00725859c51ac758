"""What a language model's answer says, without what differs between two equal answers (ids, times,
how it was cut into pieces): to compare a copy's answer with the one that was given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

_EVENT = b"data: "


def spoken(parts: Iterable[bytes]) -> list[str]:
    """The text (and calls) of each choice, of V2 pieces of text, an answer or an event stream."""
    parts = list(parts)
    joined = b"".join(parts)
    if not joined.startswith((b"{", _EVENT)):
        return [joined.decode("utf-8", "replace")]
    if joined.startswith(_EVENT):
        lines = joined.splitlines()
        objects = [line[len(_EVENT) :] for line in lines if line.startswith(_EVENT + b"{")]
    else:
        objects = [joined]
    texts: dict[int, str] = {}
    for each in objects:
        try:
            choices = orjson.loads(each).get("choices", ())
        except orjson.JSONDecodeError:
            # A completion over V2 that itself begins like an object.
            return [joined.decode("utf-8", "replace")]
        for choice in choices:
            index = int(choice["index"])
            texts[index] = texts.get(index, "") + _said(choice)
    return [texts[index] for index in sorted(texts)]


def _said(choice: dict[str, Any]) -> str:
    message = choice.get("message") or choice.get("delta") or choice
    text = message.get("content") or message.get("text") or ""
    for call in message.get("tool_calls") or ():
        function = call.get("function", {})
        text += f"{function.get('name') or ''}{function.get('arguments') or ''}"
    return str(text)
