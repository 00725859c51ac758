"""Names of the files that a caller sends with a load: `file:<version>/<name>`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.errors import InvalidRequest, SquadronError

MAX_NAME = 255
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PREFIX = "file:"
MAX_DIGITS = 18
"""Of a version: it is an int64 in the protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedFile:
    version: int
    name: str
    content: bytes


def uploaded_files(files: Mapping[str, bytes]) -> tuple[UploadedFile, ...]:
    """Only plain names inside a numbered version; nothing can lead out of its folder.

    Raises: InvalidRequest; SquadronError (internal) for a name that no file system takes, as
    Triton answers it.
    """
    found: list[UploadedFile] = []
    for key, content in files.items():
        path = key.removeprefix(_PREFIX)
        if any(len(part) > MAX_NAME for part in path.split("/")):
            raise SquadronError("failed to poll from model repository: a file's name is too long")
        version, _, name = path.partition("/")
        is_number = version.isdecimal() and version.isascii() and not version.startswith("0")
        if not is_number or len(version) > MAX_DIGITS:
            raise InvalidRequest(f"file {key[:80]!r}: expected file:<version>/<name>")
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"file {key[:80]!r}: the name must be plain: letters, digits, '.', '_', '-', no "
                "folders"
            )
        found.append(UploadedFile(version=int(version), name=name, content=content))
    return tuple(found)
