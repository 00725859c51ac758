from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.config.model_card import TextPreprocess
from cluster.errors import ConfigError, InvalidRequest
from cluster.processing.text import TextReader, pad_together
from cluster.tensors import Datatype, Signature, TensorSpec
from tests.cluster.processing.small_tokenizer import WORDS, save_tokenizer

ALL = ("input_ids", "attention_mask", "token_type_ids")


def reader(
    folder: Path, names: tuple[str, ...] = ALL, datatype: Datatype = "INT64", max_tokens: int = 5
) -> TextReader:
    takes = tuple(TensorSpec(name=n, datatype=datatype, shape=(-1, -1)) for n in names)
    return TextReader(
        TextPreprocess(max_tokens=max_tokens), folder, Signature(inputs=takes, outputs=())
    )


def test_texts_become_ids_padded_to_the_longest(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    found = reader(tmp_path).read([b"a cat sat", "grün".encode()])

    assert {name: array.tolist() for name, array in found.items()} == {
        "input_ids": [[1, 4, 5, 6, 2], [1, 7, 2, 3, 3]],
        "attention_mask": [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]],
        "token_type_ids": [[0] * 5, [0] * 5],
    }
    assert {array.dtype for array in found.values()} == {np.dtype(np.int64)}


def test_the_artefact_gets_what_it_takes_in_its_own_datatype(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    found = reader(tmp_path, ALL[:2], "INT32").read([b"a"])

    assert list(found) == ["input_ids", "attention_mask"]
    assert {array.dtype for array in found.values()} == {np.dtype(np.int32)}


def test_long_texts_are_cut_and_keep_their_last_mark(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    found = reader(tmp_path).read([b"a cat sat a cat sat a cat"])

    assert found["input_ids"].tolist() == [[1, 4, 5, 6, 2]]


def test_an_empty_text_has_only_its_marks(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    found = reader(tmp_path).read([b"", b"  "])

    assert found["input_ids"].tolist() == [[1, 2], [1, 2]]
    assert found["attention_mask"].tolist() == [[1, 1], [1, 1]]


def test_what_is_not_utf8_is_refused_by_its_place(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)

    with pytest.raises(InvalidRequest, match=r"text\[1\]: not UTF-8: byte 0xff at position 2"):
        reader(tmp_path).read([b"a", b"ca\xff"])


def test_a_fixed_length_in_the_tokenizers_file_is_not_obeyed_but_its_padding_id_is(
    tmp_path: Path,
) -> None:
    save_tokenizer(tmp_path, pads_to=128)
    made = reader(tmp_path)

    assert made.pad_values["input_ids"] == 9
    assert made.read([b"a", b"a cat"])["input_ids"].tolist() == [[1, 4, 2, 9], [1, 4, 5, 2]]


def test_without_a_padding_token_zero_is_used(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, words={w: i for w, i in WORDS.items() if w != "[PAD]"})

    assert reader(tmp_path).pad_values["input_ids"] == 0


@pytest.mark.parametrize(
    "names", [("input_ids",), ("attention_mask",), ("x",), (*ALL, "position_ids")]
)
def test_an_artefact_that_takes_something_else_is_refused(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    save_tokenizer(tmp_path)
    with pytest.raises(ConfigError, match="preprocess text gives input_ids"):
        reader(tmp_path, names)


def test_a_missing_and_a_broken_tokenizer_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.json: the tokenizer is missing"):
        reader(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tokenizer\.json: not a tokenizer"):
        reader(tmp_path)


def test_tensors_of_different_lengths_are_filled_up() -> None:
    short, long = np.array([[1], [2]], np.int32), np.array([[3, 4, 5]], np.int32)

    found = pad_together([short, long, short[:1]], 9)

    assert found.tolist() == [[1, 9, 9], [2, 9, 9], [3, 4, 5], [1, 9, 9]]
    assert found.dtype == np.int32
    assert pad_together([long, long], 9).tolist() == [[3, 4, 5], [3, 4, 5]]
    assert pad_together([long], 9) is long
