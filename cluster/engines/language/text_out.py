"""Tokens of one choice to text: whole characters, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.engines.language.tokens import ModelTokenizer


class TextOut:
    """Holds back what may be the beginning of a stop string. `prompt`: the tokens before, as the
    text of the first one may depend on them. `keeps_stop`: what ends the text is shown with it."""

    def __init__(
        self,
        tokenizer: ModelTokenizer,
        stop: Sequence[str],
        *,
        prompt: Sequence[int] = (),
        keeps_stop: bool = False,
        skips_special: bool = True,
    ) -> None:
        self.keeps_stop = keeps_stop
        self._tokenizer = tokenizer
        self._skips_special = skips_special
        self._stream = tokenizer.stream(prompt, skips_special=skips_special)
        self._stop = tuple(stop)
        self._held = ""
        self.has_stopped = False

    def add(self, token_id: int, *, may_stop: bool = True) -> str:
        """The text that is certain now. Sets `has_stopped` at a stop string, of several at the one
        that is complete first; without `may_stop` one that ends here is text like any other."""
        self._held += self._step(token_id)
        found = []
        for stop in self._stop if may_stop else ():
            begin = self._held.find(stop)
            if begin >= 0:
                found.append((begin + len(stop), begin))
        if found:
            self.has_stopped = True
            end, begin = min(found, key=lambda each: each[0])
            text, self._held = self._held[: end if self.keeps_stop else begin], ""
            return text
        keep = self._num_held()
        text = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return text

    def rest(self) -> str:
        """At the end: what was held back."""
        text, self._held = self._held, ""
        return text

    def _step(self, token_id: int) -> str:
        try:
            return self._tokenizer.step(self._stream, token_id)
        except Exception:
            # `tokenizers` raises plain Exception where bytes that are no UTF-8 change what it had
            # decoded before: the text goes on from here.
            self._stream = self._tokenizer.stream(skips_special=self._skips_special)
            return self._tokenizer.step(self._stream, token_id)

    def _num_held(self) -> int:
        """The longest end of the text that a stop string begins with."""
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:size]):
                    longest = size
                    break
        return longest
