"""Tokens of one choice to text: whole characters, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.engines.language.tokens import ModelTokenizer


class TextOut:
    """Holds back what may be the beginning of a stop string."""

    def __init__(self, tokenizer: ModelTokenizer, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stream = tokenizer.stream()
        self._stop = tuple(stop)
        self._held = ""
        self.has_stopped = False

    def add(self, token_id: int, *, may_stop: bool = True) -> str:
        """The text that is certain now. Sets `has_stopped` at a stop string, which is left out;
        without `may_stop` one that ends here is text like any other."""
        self._held += self._tokenizer.step(self._stream, token_id)
        ends = [self._held.find(stop) for stop in self._stop] if may_stop else []
        found = [end for end in ends if end >= 0]
        if found:
            self.has_stopped = True
            text, self._held = self._held[: min(found)], ""
            return text
        keep = self._num_held()
        text = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return text

    def rest(self) -> str:
        """At the end: what was held back."""
        text, self._held = self._held, ""
        return text

    def _num_held(self) -> int:
        """The longest end of the text that a stop string begins with."""
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:size]):
                    longest = size
                    break
        return longest
