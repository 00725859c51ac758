"""UTF-8 text -> token ids, and how token tensors of different lengths are put into one batch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from cluster.config.model_card import TextPreprocess
from cluster.errors import ConfigError, InvalidRequest
from cluster.tensors import NUMPY_DTYPES, Array, Signature

# A replica prepares in one thread: the library's own pool would take cores from the engines.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"


class TextReader:
    """Tokenises for one model: cut at `max_tokens`, padded to the longest of what is given.

    Raises: ConfigError when the tokenizer is missing or broken, or when the artefact takes no
    `input_ids`, no `attention_mask` (without it padding would change the answers), or anything
    that text cannot give.
    """

    def __init__(self, spec: TextPreprocess, folder: Path, takes: Signature) -> None:
        names = [tensor.name for tensor in takes.inputs]
        if not {IDS, MASK} <= set(names) <= {IDS, MASK, TYPES}:
            raise ConfigError(
                f"preprocess text gives {IDS}, {MASK} and, if asked for, {TYPES}; "
                f"the artefact takes {', '.join(names)}",
                key="preprocess",
            )
        self._dtypes = {t.name: NUMPY_DTYPES[t.datatype] for t in takes.inputs}
        self._tokenizer = _tokenizer(folder / spec.tokenizer, spec.max_tokens)
        self.pad_values = {IDS: _pad_id(self._tokenizer), MASK: 0, TYPES: 0}
        # The file may ask for a fixed length; padding is ours, after this was read.
        self._tokenizer.no_padding()

    def read(self, items: Sequence[bytes], tensor: str = "text") -> dict[str, Array]:
        """Shapes: `[batch, tokens]` each.

        Raises: InvalidRequest naming the element that is not UTF-8.
        """
        texts = [_text(item, f"{tensor}[{index}]") for index, item in enumerate(items)]
        encodings = self._tokenizer.encode_batch_fast(texts)
        longest = max((len(encoding.ids) for encoding in encodings), default=0)
        found: dict[str, Array] = {}
        for name, dtype in self._dtypes.items():
            array = np.full((len(texts), longest), self.pad_values[name], dtype=dtype)
            for row, encoding in zip(array, encodings, strict=True):
                row[: len(encoding.ids)] = _column(encoding, name)
            found[name] = array
        return found


def pad_together(arrays: Sequence[Array], value: int) -> Array:
    """Shapes: `[rows_i, tokens_i]` -> `[sum of rows, longest]`, filled up with `value`."""
    if len(arrays) == 1:
        return arrays[0]
    longest = max(array.shape[1] for array in arrays)
    if all(array.shape[1] == longest for array in arrays):
        return np.concatenate(arrays)
    rows = sum(array.shape[0] for array in arrays)
    whole = np.full((rows, longest), value, dtype=arrays[0].dtype)
    start = 0
    for array in arrays:
        whole[start : start + array.shape[0], : array.shape[1]] = array
        start += array.shape[0]
    return whole


def _column(encoding: object, name: str) -> list[int]:
    attribute = {IDS: "ids", MASK: "attention_mask", TYPES: "type_ids"}[name]
    column: list[int] = getattr(encoding, attribute)
    return column


def _text(item: bytes, place: str) -> str:
    try:
        return item.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{place}: not UTF-8: byte {item[error.start]:#04x} at position {error.start}"
        ) from None


def _tokenizer(file: Path, max_tokens: int) -> Tokenizer:
    if not file.is_file():
        raise ConfigError(f"{file}: the tokenizer is missing", file=str(file))
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises a bare Exception for a file it cannot read
        raise ConfigError(f"{file}: not a tokenizer: {error}", file=str(file)) from None
    tokenizer.enable_truncation(max_length=max_tokens)
    return tokenizer


def _pad_id(tokenizer: Tokenizer) -> int:
    """As the tokenizer's file says, else the id of a token of the usual name, else 0."""
    padding = json.loads(tokenizer.to_str()).get("padding")
    if padding is not None:
        return int(padding["pad_id"])
    ids = (tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>", "<|endoftext|>"))
    return next((found for found in ids if found is not None), 0)
