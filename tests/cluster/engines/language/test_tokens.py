"""Tokens that are parts of characters, with a real byte-level tokenizer of one token a byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.engines.language.tokens import ModelTokenizer
from cluster.errors import InvalidRequest


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bytes")
    vocabulary = {each: i for i, each in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=made)
    fast.chat_template = "{{ messages }}{{ tools }}"
    fast.save_pretrained(folder)
    return ModelTokenizer(Path(folder))


def test_a_model_s_own_code_is_never_run_whatever_the_terminal_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers asks there whether it may, unless it is told beforehand."""
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\nclass Own: pass\n"
    (tmp_path / "own.py").write_text(code)
    auto = {"AutoConfig": "own.Own", "AutoTokenizer": ["own.Own", None]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto}))
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or "y")

    with pytest.raises(ValueError, match="custom code"):
        ModelTokenizer(tmp_path)

    assert not ran.exists()
    assert asked == []


def test_the_bytes_of_a_characters_tokens_are_the_character(tokenizer: ModelTokenizer) -> None:
    for text in ("a", " ", "é", "\U0001f600", "\ufffd", "".join(map(chr, range(1, 400)))):
        pieces = [tokenizer.token_bytes(each) for each in tokenizer.encode(text)]

        assert b"".join(pieces) == text.encode()
    assert len(tokenizer.encode("\U0001f600")) == 4


def test_a_template_tells_how_a_model_writes_its_calls(tokenizer: ModelTokenizer) -> None:
    assert tokenizer.has_tools
    assert tokenizer.has_plain_calls


def test_tokens_that_are_none_are_refused_by_their_field(tokenizer: ModelTokenizer) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tokenizer.decode([10**6])

    assert caught.value.details["param"] == "tokens"


def test_a_word_after_a_prompt_keeps_the_blank_before_it(tmp_path: Path) -> None:
    """In vocabularies with `▁` a text's own first word loses it."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"▁a": 0, "▁b": 1, "<unk>": 2}, unk_token="<unk>"))
    made.decoder = decoders.Metaspace()
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=made)
    fast.save_pretrained(tmp_path)
    tokenizer = ModelTokenizer(tmp_path)

    first, after = tokenizer.stream(), tokenizer.stream([0])

    assert (tokenizer.step(first, 1), tokenizer.step(after, 1)) == ("b", " b")
