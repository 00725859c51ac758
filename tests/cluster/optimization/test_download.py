from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from cluster.optimization.download import ArchiveCache, PackageIndex
from cluster.optimization.progress import Progress
from cluster.optimization.sources import Archive

CONTENT = b"weights"


def archive(content: bytes = CONTENT) -> Archive:
    return Archive(
        package="tiny",
        version="1.0",
        file="tiny-1.0-py3-none-any.whl",
        sha256=hashlib.sha256(content).hexdigest(),
        licence="MIT",
        holds="nothing",
    )


@dataclass
class FakeIndex:
    """Serves `content`; with `breaks`, half of it and then an error."""

    content: bytes = CONTENT
    breaks: bool = False
    asked: list[str] = field(default_factory=list)

    def download(self, archive: Archive, target: Path, progress: Progress) -> None:
        self.asked.append(archive.file)
        if self.breaks:
            target.write_bytes(self.content[:3])
            raise ConfigError("connection lost")
        target.write_bytes(self.content)


def test_archive_is_downloaded_once(tmp_path: Path) -> None:
    index = FakeIndex()
    cache = ArchiveCache(tmp_path, index=index)
    assert cache.get(archive()).read_bytes() == CONTENT
    assert cache.get(archive()) == tmp_path / "tiny-1.0-py3-none-any.whl"
    assert index.asked == ["tiny-1.0-py3-none-any.whl"]
    assert cache.downloaded_bytes == len(CONTENT)


def test_download_that_is_not_the_pinned_file_is_not_kept(tmp_path: Path) -> None:
    cache = ArchiveCache(tmp_path, index=FakeIndex(content=b"other"))
    with pytest.raises(ConfigError) as caught:
        cache.get(archive())
    message = caught.value.message
    assert "tiny-1.0-py3-none-any.whl" in message
    assert hashlib.sha256(CONTENT).hexdigest() in message
    assert hashlib.sha256(b"other").hexdigest() in message
    assert list(tmp_path.iterdir()) == []


def test_archive_that_was_changed_in_the_cache_is_refused_at_its_next_use(tmp_path: Path) -> None:
    cache = ArchiveCache(tmp_path, index=FakeIndex())
    path = cache.get(archive())
    path.write_bytes(b"tampered")
    with pytest.raises(ConfigError, match="not the file that was pinned") as caught:
        cache.get(archive())
    assert caught.value.details["value"] == hashlib.sha256(b"tampered").hexdigest()


def test_broken_download_leaves_nothing_that_counts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="connection lost"):
        ArchiveCache(tmp_path, index=FakeIndex(breaks=True)).get(archive())
    assert list(tmp_path.iterdir()) == []
    assert ArchiveCache(tmp_path, index=FakeIndex()).get(archive()).read_bytes() == CONTENT


def test_index_comes_from_pip_s_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple/")
    assert PackageIndex().url == "https://mirror.example/simple/"
    monkeypatch.delenv("PIP_INDEX_URL")
    assert PackageIndex().url == "https://pypi.org/simple/"


def test_what_cannot_be_had_is_named_without_credentials(tmp_path: Path) -> None:
    # A scheme that requests has no adapter for: refused before any connection.
    index = PackageIndex("none://user:secret@mirror.example/simple/")
    with pytest.raises(ConfigError) as caught:
        ArchiveCache(tmp_path, index=index).get(archive())
    message = caught.value.message
    assert message.startswith("cannot download tiny-1.0-py3-none-any.whl (tiny 1.0)")
    assert "PIP_INDEX_URL" in message
    assert "secret" not in message
