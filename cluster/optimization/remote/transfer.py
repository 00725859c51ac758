"""Files from an object store, whole and right or not at all; what was begun goes on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from cluster.config.storage.location import SCHEMES, StoreUri
from cluster.errors import ConfigError
from cluster.optimization.progress import Progress

CHUNK_BYTES = 8 * 2**20
SUMS = "SHA256SUMS"
"""As coreutils' `sha256sum` writes it; where a version has one, every file must stand in it."""

_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|CREDENTIAL")
_SHORTEST_SECRET = 6
_MOST_TEXT_BYTES = 16 * 2**20
"""A card or a list of hashes; read whole, so what is longer is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """`name`: relative to the version's folder. `mark` changes when its content does."""

    name: str
    path: str
    num_bytes: int
    mark: str


class ObjectStore:
    """What lies below a URI. Every error is a ConfigError that names the URI, never a secret."""

    def __init__(self, uri: StoreUri) -> None:
        self.uri = uri
        self._fs = self._told(lambda: _file_system(uri))

    def folders(self, path: str) -> tuple[str, ...]:
        """Names of the folders in a folder; none where it is not there."""
        return tuple(
            PurePosixPath(each["name"]).name
            for each in self._listed(path)
            if each["type"] == "directory"
        )

    def has(self, path: str) -> bool:
        return bool(self._told(lambda: self._fs.exists(f"{self.uri.path}/{path}")))

    def files(self, path: str) -> tuple[RemoteFile, ...]:
        """All files below a folder. Raises: ConfigError for a name that leads out of it."""
        base = f"{self.uri.path}/{path}".rstrip("/")
        found = self._told(lambda: self._fs.find(base, detail=True))
        files = []
        for full, facts in sorted(found.items()):
            name = full[len(base) + 1 :]
            # A folder's marker is an object of no bytes with its name.
            if facts["type"] != "file" or not name or name.endswith("/"):
                continue
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ConfigError(f"{self.uri}/{path}: refused a file named {name!r}")
            mark = str(facts.get("ETag") or facts.get("etag") or facts.get("blob_id") or "")
            size = int(facts["size"])
            files.append(RemoteFile(name=name, path=full, num_bytes=size, mark=f"{mark} {size}"))
        return tuple(files)

    def read(self, file: RemoteFile) -> bytes:
        """Of a list of hashes. Raises: ConfigError for one of more than 16 MiB."""
        return self._whole(file.path)

    def text(self, path: str) -> str:
        """Of a card. Raises: ConfigError for one of more than 16 MiB, or that is no text."""
        content = self._whole(f"{self.uri.path}/{path}")
        return str(self._told(content.decode))

    def _whole(self, path: str) -> bytes:
        def most() -> bytes:
            with self._fs.open(path, "rb") as source:
                return bytes(source.read(_MOST_TEXT_BYTES + 1))

        content: bytes = self._told(most)
        if len(content) > _MOST_TEXT_BYTES:
            raise ConfigError(
                f"{self.uri}: {path} has more than {_MOST_TEXT_BYTES} bytes, for a card or a list "
                "of hashes too many",
                file=path,
            )
        return content

    def bring(self, file: RemoteFile, target: Path, progress: Progress) -> None:
        """The file at `target`; goes on where an earlier attempt at the same content ended."""
        partial = target.with_name(f"{target.name}.partial")
        mark = target.with_name(f"{target.name}.mark")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not mark.is_file() or mark.read_text() != json.dumps(file.mark):
            partial.unlink(missing_ok=True)
            mark.write_text(json.dumps(file.mark))
        with progress.download(file.name, file.num_bytes) as transfer, partial.open("ab") as out:
            transfer.update(out.tell())
            self._told(lambda: self._copy(file, out, transfer.update))
        if partial.stat().st_size != file.num_bytes:
            partial.unlink()
            raise ConfigError(
                f"{self.uri}: {file.name} should have {file.num_bytes} bytes and came with others; "
                "it was thrown away, try again",
                file=file.name,
            )
        partial.replace(target)
        mark.unlink()

    def send(self, file: Path, path: str) -> None:
        self._told(lambda: self._fs.put_file(str(file), f"{self.uri.path}/{path}"))

    def write(self, content: bytes, path: str) -> None:
        self._told(lambda: self._fs.pipe_file(f"{self.uri.path}/{path}", content))

    def _copy(self, file: RemoteFile, out: Any, tell: Callable[[int], None]) -> None:
        if out.tell() >= file.num_bytes:
            return
        with self._fs.open(file.path, "rb", block_size=CHUNK_BYTES) as source:
            source.seek(out.tell())
            # Not a byte more than was told: room was made for that, and a store may lie.
            while chunk := source.read(min(CHUNK_BYTES, file.num_bytes - out.tell() + 1)):
                out.write(chunk)
                tell(len(chunk))
                if out.tell() > file.num_bytes:
                    return

    def _listed(self, path: str) -> list[dict[str, Any]]:
        def listed() -> list[dict[str, Any]]:
            try:
                found: list[dict[str, Any]] = self._fs.ls(f"{self.uri.path}/{path}", detail=True)
            except FileNotFoundError:
                return []
            return found

        return list(self._told(listed))

    def _told(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except ConfigError:
            raise
        except Exception as error:
            # Each provider has errors of its own; the operator acts on all of them.
            raise ConfigError(
                f"{self.uri}: {type(error).__name__}: {without_secrets(str(error))[:500]}",
                key="store.path",
                value=str(self.uri),
            ) from None


def without_secrets(text: str) -> str:
    """The text without what stands in the environment under a name that says it is secret."""
    for name, value in os.environ.items():
        if _SECRET.search(name.upper()) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return re.sub(r"://[^/@\s]+@", "://", text)


def _file_system(uri: StoreUri) -> Any:
    package = SCHEMES[uri.scheme]
    if find_spec("fsspec") is None or find_spec(package) is None:
        raise ConfigError(
            f"{uri}: a {uri.scheme}:// store needs {package}: "
            f"pip install 'squadron-serve[{uri.scheme}]'",
            key="store.path",
            value=str(uri),
        )
    import fsspec  # type: ignore[import-untyped]

    # What was put there a moment ago is seen: nothing is listed from memory.
    return fsspec.filesystem(uri.scheme, use_listings_cache=False, skip_instance_cache=True)
