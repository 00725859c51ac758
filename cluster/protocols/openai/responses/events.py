"""A chat's stream as the events of a Response.

`created`, `in_progress`; of each item `output_item.added`, its pieces, `output_item.done`; last one
of `completed`, `incomplete`, `failed`. Every event has the next `sequence_number`. Source: API
reference, "Streaming events".
"""

from __future__ import annotations

from typing import Any

import orjson

from cluster.protocols.openai.responses.answer import (
    call_item,
    ended,
    head,
    key_of,
    message_item,
    scores_of,
    text_part,
)
from cluster.protocols.openai.responses.request import ResponsesRequest, written

_DATA = b"data: "
_NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class ResponseEvents:
    """Of one request: bytes of the chat's stream go in (whole events), bytes of ours come out."""

    def __init__(self, asked: ResponsesRequest) -> None:
        self._asked = asked
        self._head: dict[str, Any] = {}
        self._key = ""
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._scores: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._text = ""
        self._reason: str | None = None
        self._usage: dict[str, Any] = _NO_USAGE
        self._has_ended = False

    def add(self, part: bytes) -> bytes:
        events: list[bytes] = []
        for line in part.splitlines():
            if not line.startswith(_DATA):
                continue
            if line == b"data: [DONE]":
                events += self._end()
                continue
            chunk = orjson.loads(line[len(_DATA) :])
            if "error" in chunk:
                events += self._fail(chunk["error"])
            else:
                events += self._chunk(chunk)
        return b"".join(events)

    def _chunk(self, chunk: dict[str, Any]) -> list[bytes]:
        events = [] if self._head else self._begin(chunk)
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        for choice in chunk["choices"]:
            delta = choice["delta"]
            scores = scores_of(choice.get("logprobs"))
            if delta.get("content") or scores:
                events += self._say(delta.get("content") or "", scores)
            for call in delta.get("tool_calls") or ():
                events += self._call(call)
            self._reason = choice["finish_reason"] or self._reason
        return events

    def _begin(self, chunk: dict[str, Any]) -> list[bytes]:
        self._key = key_of(chunk["id"])
        name = f"resp_{self._key}"
        self._head = head(self._asked, name, chunk["created"], chunk["model"])
        return [
            self._event("response.created", response=self._head),
            self._event("response.in_progress", response=self._head),
        ]

    def _say(self, piece: str, scores: list[dict[str, Any]]) -> list[bytes]:
        events = []
        if self._open is None or self._open["type"] != "message":
            events = self._close("completed")
            name = f"msg_{self._key}" + (f"_{len(self._output)}" if self._output else "")
            item = message_item(name, [], "in_progress")
            events += self._add(item)
            part = text_part("", [])
            events.append(self._within("response.content_part.added", content_index=0, part=part))
        self._text += piece
        self._scores += scores
        events.append(
            self._within(
                "response.output_text.delta", content_index=0, delta=piece, logprobs=scores
            )
        )
        return events

    def _call(self, call: dict[str, Any]) -> list[bytes]:
        events = []
        function = call["function"]
        if "id" in call:
            events = self._close("completed")
            events += self._add(call_item(call["id"], function["name"], "", "in_progress"))
        if function.get("arguments"):
            self._text += function["arguments"]
            events.append(
                self._within("response.function_call_arguments.delta", delta=function["arguments"])
            )
        return events

    def _add(self, item: dict[str, Any]) -> list[bytes]:
        self._open, self._text, self._scores = item, "", []
        return [
            self._event("response.output_item.added", output_index=len(self._output), item=item)
        ]

    def _close(self, state: str) -> list[bytes]:
        item = self._open
        if item is None:
            return []
        if item["type"] == "message":
            part = text_part(self._text, self._scores)
            item = {**item, "content": [part], "status": state}
            events = [
                self._within(
                    "response.output_text.done",
                    content_index=0,
                    text=self._text,
                    logprobs=self._scores,
                ),
                self._within("response.content_part.done", content_index=0, part=part),
            ]
        else:
            item = {**item, "arguments": self._text, "status": state}
            events = [
                self._within(
                    "response.function_call_arguments.done",
                    arguments=self._text,
                    name=item["name"],
                )
            ]
        where = len(self._output)
        self._output.append(item)
        self._open = None
        return [*events, self._event("response.output_item.done", output_index=where, item=item)]

    def _end(self) -> list[bytes]:
        if self._has_ended or not self._head:
            return []
        self._has_ended = True
        events = [] if self._open or self._output else self._say("", [])
        last = ended(self._reason, self._usage)
        events += self._close(last["status"])
        whole = {**self._head, **last, "output": self._output}
        return [*events, self._event(f"response.{last['status']}", response=whole)]

    def _fail(self, error: dict[str, Any]) -> list[bytes]:
        """The status has been sent: what went wrong is the last event."""
        self._has_ended = True
        events = self._close("incomplete")
        told = {"code": "server_error", "message": error["message"]}
        whole = {
            **(self._head or head(self._asked, "resp_", 0, self._asked.model)),
            "status": "failed",
            "error": told,
            "output": self._output,
        }
        return [*events, self._event("response.failed", response=whole)]

    def _within(self, kind: str, **fields: Any) -> bytes:
        assert self._open is not None
        place = {"item_id": self._open["id"], "output_index": len(self._output)}
        return self._event(kind, **place, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        content = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), written(content))
