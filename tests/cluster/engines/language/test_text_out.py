from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from cluster.engines.language.text_out import TextOut
from cluster.engines.language.tokens import ModelTokenizer


class Letters:
    """A tokenizer whose tokens are characters: exact, and enough for what is tested here."""

    def stream(self, prompt: Sequence[int] = (), *, skips_special: bool = True) -> Any:
        return []

    def step(self, stream: Any, token_id: int) -> str:
        return chr(token_id)


def said(text: str, *stops: str) -> tuple[list[str], str, bool]:
    """What comes at each character, what at the end, and whether a stop was found."""
    tested = TextOut(cast(ModelTokenizer, Letters()), cast(Sequence[str], stops))
    pieces = []
    for character in text:
        pieces.append(tested.add(ord(character)))
        if tested.has_stopped:
            break
    return pieces, tested.rest(), tested.has_stopped


def test_without_stops_everything_comes_at_once() -> None:
    assert said("abc") == (["a", "b", "c"], "", False)


def test_the_beginning_of_a_stop_is_held_back() -> None:
    assert said("ax", "xyz") == (["a", ""], "x", False)


def test_what_was_held_comes_when_it_was_no_stop() -> None:
    assert said("xyq", "xyz") == (["", "", "xyq"], "", False)


def test_a_stop_is_left_out_and_ends_the_text() -> None:
    assert said("abxyzcd", "xyz") == (["a", "b", "", "", ""], "", True)


@pytest.mark.parametrize("text", ["aab", "aaab"])
def test_a_stop_that_overlaps_itself_is_found(text: str) -> None:
    pieces, rest, has_stopped = said(text, "aab")

    assert "".join(pieces) + rest == text[:-3]
    assert has_stopped


def test_a_stop_that_may_not_stop_yet_is_text() -> None:
    tested = TextOut(cast(ModelTokenizer, Letters()), ("xy",))
    early = [tested.add(ord(each), may_stop=False) for each in "axyx"]

    assert ("".join(early), tested.has_stopped) == ("axy", False)
    assert tested.add(ord("y")) == ""
    assert tested.has_stopped


def test_the_earlier_of_two_stops_counts() -> None:
    pieces, _, has_stopped = said("abcd", "cd", "bc")

    assert "".join(pieces) == "a"
    assert has_stopped


class Words(Letters):
    """A token is all of this text."""

    def step(self, stream: Any, token_id: int) -> str:
        return "abcde"


def test_of_stops_in_one_token_the_one_that_ends_first_counts() -> None:
    tested = TextOut(cast(ModelTokenizer, Words()), ("abcd", "bc"))

    assert (tested.add(1), tested.has_stopped) == ("a", True)


def test_a_stop_that_is_kept_ends_the_text() -> None:
    tested = TextOut(cast(ModelTokenizer, Letters()), ("xy",), keeps_stop=True)

    assert "".join(tested.add(ord(each)) for each in "axy") == "axy"
    assert tested.has_stopped


class Stumbling(Letters):
    """Refuses a token once, as `tokenizers` does where it had decoded something else before."""

    def step(self, stream: Any, token_id: int) -> str:
        stream.append(token_id)
        if len(stream) == 3:
            raise Exception("Invalid prefix encountered")
        return chr(token_id)


def test_a_text_goes_on_after_bytes_that_cannot_be_decoded() -> None:
    tested = TextOut(cast(ModelTokenizer, Stumbling()), ())

    assert "".join(tested.add(ord(each)) for each in "abcd") == "abcd"
