"""Text to tokens and back for language models: the tokenizer's own chat template, no other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers.decoders import DecodeStream

from cluster.errors import InvalidRequest

MAX_CHARS_PER_TOKEN = 128
"""No text of more characters than this times the context can fit: it is refused untouched."""


def _bytes_of_pieces() -> dict[str, int]:
    """What byte-level vocabularies write for each byte: itself where it prints, else a character
    from 256 on (GPT-2's table, which every byte-level tokenizer uses)."""
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(prints)]
    table = {chr(byte): byte for byte in prints}
    return table | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _bytes_of_pieces()
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""A byte in vocabularies with byte fallback."""


class ModelTokenizer:
    """The tokenizer in a model's folder."""

    def __init__(self, folder: Path, chat_template: str = "") -> None:
        from transformers import AutoTokenizer

        self.hf: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        if chat_template:
            self.hf.chat_template = Path(chat_template).read_text(encoding="utf-8")
        self._fast = self.hf.backend_tokenizer
        self._special = frozenset(self.hf.all_special_ids)

    @property
    def vocab_size(self) -> int:
        return len(self.hf)

    @cached_property
    def has_tools(self) -> bool:
        """Whether the template itself writes tools into the prompt."""
        return "tools" in self._template

    @cached_property
    def has_plain_calls(self) -> bool:
        """Whether the model was trained to write its calls as JSON, without a mark around them."""
        return self.has_tools and "<tool_call>" not in self._template

    @property
    def _template(self) -> str:
        # A tokenizer may have several by name; the whole of them says what the model knows.
        return str(self.hf.chat_template or "")

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        ids: list[int] = self._fast.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        self.check(token_ids, param="tokens")
        text: str = self._fast.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        return text

    def token_text(self, token_id: int) -> str:
        """One token by itself; a part of a character decodes to U+FFFD."""
        text: str = self._fast.decode([token_id], skip_special_tokens=False)
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """One token as UTF-8; those of a character's tokens put together are the character."""
        text = self.token_text(token_id)
        if "\ufffd" not in text:
            return text.encode()
        piece = self._fast.id_to_token(token_id) or ""
        single = _BYTE_PIECE.fullmatch(piece)
        if single:
            return bytes([int(single[1], 16)])
        try:
            return bytes(_BYTES[character] for character in piece)
        except KeyError:
            return text.encode()

    def check(self, token_ids: Sequence[int], *, param: str = "prompt") -> None:
        """Raises: InvalidRequest for an id that is not in the vocabulary."""
        for token_id in token_ids:
            if not 0 <= token_id < self.vocab_size:
                raise InvalidRequest(
                    f"token id {token_id} is out of vocabulary (0 to {self.vocab_size - 1})",
                    param=param,
                )

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt that the model was trained to see. Raises: InvalidRequest when the template
        refuses the messages."""
        if self.hf.chat_template is None:
            raise InvalidRequest("this model has no chat template: ask /v1/completions")
        try:
            text: str = self.hf.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **(extra or {}),
            )
        except Exception as error:
            # Templates are programs that raise what they like; what they say is about the messages.
            raise InvalidRequest(
                f"the model's chat template refuses the messages: {error}", param="messages"
            ) from None
        return text

    def stream(self, prompt: Sequence[int] = (), *, skips_special: bool = True) -> DecodeStream:
        """Gives text token by token, holding back parts of characters. After a `prompt` a word's
        first token keeps the blank before it, which some vocabularies write into the token."""
        return DecodeStream(ids=list(prompt), skip_special_tokens=skips_special)

    def step(self, stream: DecodeStream, token_id: int) -> str:
        return stream.step(self._fast, token_id) or ""
