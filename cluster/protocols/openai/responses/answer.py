"""A chat's answer as a Response: its items, its state and its usage.

Source: API reference, "The Response object".
"""

from __future__ import annotations

from typing import Any

from cluster.protocols.openai.responses.request import ResponsesRequest


def response_of(asked: ResponsesRequest, chat: dict[str, Any]) -> dict[str, Any]:
    """`chat`: the whole `chat.completion` object."""
    choice = chat["choices"][0]
    message, reason = choice["message"], choice["finish_reason"]
    key = key_of(chat["id"])
    state = "incomplete" if reason == "length" else "completed"
    calls = message.get("tool_calls") or ()
    output = []
    if message["content"] or not calls:
        scores = scores_of(choice.get("logprobs"))
        part = text_part(message["content"] or "", scores)
        output.append(message_item(f"msg_{key}", [part], state))
    output += [
        call_item(call["id"], call["function"]["name"], call["function"]["arguments"], state)
        for call in calls
    ]
    return {
        **head(asked, f"resp_{key}", chat["created"], chat["model"]),
        **ended(reason, chat["usage"]),
        "output": output,
    }


def key_of(chat_id: str) -> str:
    return chat_id.partition("-")[2]


def head(asked: ResponsesRequest, name: str, created_s: int, model: str) -> dict[str, Any]:
    """What does not change while the answer is made; `output` is empty and nothing has ended."""
    wanted = asked.text.format if asked.text is not None else None
    shown: dict[str, Any] = {"type": "text"}
    if wanted is not None:
        shown = {"type": wanted.type}
        if wanted.type == "json_schema":
            shown |= {"name": wanted.name, "schema": wanted.schema, "strict": wanted.strict}
    return {
        "id": name,
        "object": "response",
        "created_at": created_s,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": asked.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": None,
        "store": False,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "text": {"format": shown},
        "tool_choice": "auto" if asked.tool_choice is None else asked.tool_choice,
        "tools": asked.tools or [],
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "truncation": asked.truncation or "disabled",
        "usage": None,
        "user": asked.user,
    }


def ended(reason: str | None, usage: dict[str, Any]) -> dict[str, Any]:
    """`reason`: the chat's `finish_reason`."""
    is_cut = reason == "length"
    return {
        "status": "incomplete" if is_cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "usage": _usage(usage),
    }


def message_item(name: str, parts: list[dict[str, Any]], state: str) -> dict[str, Any]:
    return {
        "id": name,
        "type": "message",
        "role": "assistant",
        "status": state,
        "content": parts,
    }


def text_part(text: str, scores: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": scores}


def call_item(call_id: str, name: str, arguments: str, state: str) -> dict[str, Any]:
    return {
        "id": f"fc_{call_id.removeprefix('call_')}",
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": state,
    }


def scores_of(logprobs: dict[str, Any] | None) -> list[dict[str, Any]]:
    return list((logprobs or {}).get("content") or ())


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    details = usage.get("prompt_tokens_details") or {}
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": details.get("cached_tokens", 0),
            "cache_write_tokens": 0,
        },
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }
