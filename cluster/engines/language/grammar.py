"""Text that must follow a schema: the grammars of llguidance, for every engine the same."""

from __future__ import annotations

from typing import Any

from cluster.errors import InvalidRequest
from cluster.generation import Grammar

_COMPACT: Any = {"whitespace_flexible": False}
"""Small models like to fill a flexible grammar with blanks up to the limit."""


def compile_grammar(grammar: Grammar) -> str:
    """llguidance's own form. Raises: InvalidRequest saying what is wrong with a schema."""
    from llguidance import LLMatcher

    compiled: str
    match grammar.kind:
        case "json_object":
            compiled = LLMatcher.grammar_from_json_schema({"type": "object"}, defaults=_COMPACT)
        case "regex":
            compiled = LLMatcher.grammar_from_regex(grammar.text)
        case "lark":
            compiled = LLMatcher.grammar_from_lark(grammar.text)
        case "json_schema":
            try:
                compiled = LLMatcher.grammar_from_json_schema(grammar.text, defaults=_COMPACT)
            except ValueError as error:
                raise _refused(grammar, str(error)) from None
    complaint = LLMatcher.validate_grammar(compiled, None)
    if complaint:
        raise _refused(grammar, complaint)
    return compiled


_NAMES = {"regex": "regular expression", "lark": "grammar"}


def _refused(grammar: Grammar, why: str) -> InvalidRequest:
    first = why.strip().splitlines()[0][:300] if why.strip() else "it cannot be compiled"
    name = _NAMES.get(grammar.kind, "JSON schema")
    return InvalidRequest(f"invalid {name}: {first}", param=grammar.param)
