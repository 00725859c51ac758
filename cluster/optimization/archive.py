"""Reading members of zip and tar archives. Nothing is run, and nothing can land outside a target.

An archive with one unsafe member (absolute, `..`, a link, a device) is refused as a whole: an
honest package has none, so nothing else in it is to be trusted either.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from cluster.errors import ConfigError


def read_member(archive: Path, member: str) -> bytes:
    """One file of a zip (wheel, sdist). Raises: ConfigError when absent or the archive unsafe."""
    with _open_zip(archive) as opened:
        try:
            return opened.read(member)
        except KeyError:
            raise ConfigError(f"{archive}: no member {member!r}", file=str(archive)) from None


def extract_directory(archive: Path, directory: str, into: Path) -> None:
    """The files directly in `directory` of a zip, put flat into the existing folder `into`."""
    with _open_zip(archive) as opened:
        names = [n for n in opened.namelist() if str(PurePosixPath(n).parent) == directory]
        files = [name for name in names if not name.endswith("/")]
        if not files:
            raise ConfigError(f"{archive}: nothing in {directory!r}", file=str(archive))
        for name in files:
            (into / PurePosixPath(name).name).write_bytes(opened.read(name))


def extract_matching(archive: Path, pattern: str, into: Path, *, inner: str = "") -> list[str]:
    """The files whose path matches `pattern`, put flat into `into`; returns their names, sorted.

    With `inner`, the files are those of the `.tar.gz` at that path inside the zip.
    Raises: ConfigError for an unsafe archive, for no match, and for two files of one name.
    """
    written: set[str] = set()
    for name, content in _tar_files(archive, inner) if inner else _zip_files(archive, pattern):
        if not fnmatchcase(name, pattern):
            continue
        file = PurePosixPath(name).name
        if file in written:
            raise ConfigError(f"{archive}: two files named {file} match {pattern}")
        (into / file).write_bytes(content)
        written.add(file)
    if not written:
        raise ConfigError(f"{archive}: no member matches {pattern!r}", file=str(archive))
    return sorted(written)


def _zip_files(archive: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    with _open_zip(archive) as opened:
        for name in opened.namelist():
            if not name.endswith("/") and fnmatchcase(name, pattern):
                yield name, opened.read(name)


def _tar_files(archive: Path, inner: str) -> Iterator[tuple[str, bytes]]:
    content = read_member(archive, inner)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as opened:
        members = opened.getmembers()
        for member in members:
            if not (member.isfile() or member.isdir()):
                raise _unsafe(archive, f"{inner}: {member.name}")
            _refuse_unsafe(archive, member.name)
        for member in members:
            file = opened.extractfile(member)
            if file is not None:
                yield member.name, file.read()


def _open_zip(archive: Path) -> zipfile.ZipFile:
    try:
        opened = zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise ConfigError(f"{archive}: not a zip archive: {error}", file=str(archive)) from None
    for name in opened.namelist():
        _refuse_unsafe(archive, name)
    return opened


def _refuse_unsafe(archive: Path, name: str) -> None:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise _unsafe(archive, name)


def _unsafe(archive: Path, name: str) -> ConfigError:
    return ConfigError(
        f"{archive}: refused, because its member {name!r} points outside the archive or is a link",
        file=str(archive),
        key="member",
        value=name,
    )
