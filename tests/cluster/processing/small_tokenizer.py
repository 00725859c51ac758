"""A tokenizer of eight words, as a file."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

WORDS = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "a": 4, "cat": 5, "sat": 6, "grün": 7}


def save_tokenizer(
    folder: Path, *, pads_to: int | None = None, words: dict[str, int] = WORDS
) -> None:
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    if pads_to is not None:
        tokenizer.enable_padding(pad_id=9, pad_token="<other>", length=pads_to)
    tokenizer.save(str(folder / "tokenizer.json"))
