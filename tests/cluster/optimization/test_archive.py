from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from cluster.optimization.archive import extract_directory, extract_matching, read_member


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(files: dict[str, bytes], link: str = "") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        if link:
            member = tarfile.TarInfo("link")
            member.type = tarfile.SYMTYPE
            member.linkname = link
            archive.addfile(member)
    return target.getvalue()


def test_member_is_read(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.whl", {"pkg/weights.pth": b"w"})
    assert read_member(archive, "pkg/weights.pth") == b"w"


def test_absent_member_is_named(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.whl", {"pkg/weights.pth": b"w"})
    with pytest.raises(ConfigError, match="no member 'pkg/other'"):
        read_member(archive, "pkg/other")


def test_file_that_is_no_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"<html>login</html>")
    with pytest.raises(ConfigError, match=r"a\.whl: not a zip"):
        read_member(tmp_path / "a.whl", "x")


@pytest.mark.parametrize(
    "evil", ["../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg", "c:\\evil.jpg"]
)
def test_archive_with_a_member_outside_is_refused_whole(tmp_path: Path, evil: str) -> None:
    archive = make_zip(tmp_path / "a.whl", {"good.jpg": b"1", evil: b"2"})
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(ConfigError, match="refused"):
        extract_matching(archive, "*.jpg", into)
    assert list(into.iterdir()) == []
    assert not (tmp_path / "evil.jpg").exists()


def test_matching_files_land_flat(tmp_path: Path) -> None:
    archive = make_zip(
        tmp_path / "a.whl", {"pkg/data/a.jpg": b"1", "pkg/data/b.jpg": b"2", "pkg/code.py": b"3"}
    )
    assert extract_matching(archive, "pkg/data/*.jpg", tmp_path) == ["a.jpg", "b.jpg"]
    assert (tmp_path / "b.jpg").read_bytes() == b"2"


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.whl", {"x/a.jpg": b"1", "y/a.jpg": b"2"})
    with pytest.raises(ConfigError, match=r"two files named a\.jpg"):
        extract_matching(archive, "*.jpg", tmp_path)


def test_no_match_is_an_error(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.whl", {"x/a.png": b"1"})
    with pytest.raises(ConfigError, match="no member matches"):
        extract_matching(archive, "*.jpg", tmp_path)


def test_files_of_a_tar_inside_the_zip(tmp_path: Path) -> None:
    inner = make_tar({"data/reviews.txt": b"good", "data/other.txt": b"no"})
    archive = make_zip(tmp_path / "a.zip", {"res/data.tar.gz": inner})
    found = extract_matching(archive, "*reviews.txt", tmp_path, inner="res/data.tar.gz")
    assert found == ["reviews.txt"]
    assert (tmp_path / "reviews.txt").read_bytes() == b"good"


@pytest.mark.parametrize("inner", [make_tar({"../evil": b"x"}), make_tar({"a": b"x"}, link="/etc")])
def test_tar_with_an_outside_path_or_a_link_is_refused(tmp_path: Path, inner: bytes) -> None:
    archive = make_zip(tmp_path / "a.zip", {"data.tar.gz": inner})
    with pytest.raises(ConfigError, match="refused"):
        extract_matching(archive, "*", tmp_path / "into", inner="data.tar.gz")


def test_directory_is_taken_without_its_subfolders(tmp_path: Path) -> None:
    archive = make_zip(
        tmp_path / "a.whl", {"m/config.json": b"{}", "m/1_Pooling/config.json": b"[]", "n/x": b""}
    )
    into = tmp_path / "into"
    into.mkdir()
    extract_directory(archive, "m", into)
    assert {path.name: path.read_bytes() for path in into.iterdir()} == {"config.json": b"{}"}
