from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.config.store import ModelStore
from cluster.errors import ConfigError
from cluster.optimization.add import add_model


def language_model(folder: Path, *files: str) -> Path:
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    for file in files:
        (folder / file).write_text("{}")
    return folder


def test_a_directory_that_generates_text_is_added_as_it_is(tmp_path: Path) -> None:
    source = language_model(tmp_path / "mine", "model.safetensors", "tokenizer.json", "notes.py")

    card = add_model(source, ModelStore(tmp_path / "store"))

    assert (card.format, card.precision, card.decoupled) == ("causal_lm", "bf16", True)
    assert [tensor.name for tensor in card.signature.inputs] == ["text_input"]
    stored = tmp_path / "store" / "mine" / "1"
    assert {file.name for file in stored.iterdir()} == {
        "model.yaml",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }


def test_a_language_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    source = language_model(tmp_path / "mine", "model.safetensors")

    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        add_model(source, ModelStore(tmp_path / "store"))
