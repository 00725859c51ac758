"""A stage's files on their way to a node that lacks them, over the group's control connection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from actors.sharding.control import Control
from cluster.errors import EngineFailed

PIECE_BYTES = 4 * 2**20


class Piece(msgspec.Struct, frozen=True):
    """Leader to shard: bytes that come next in the file of that name; no name ends them all."""

    name: str
    data: bytes = b""


def files_of(artefact: str) -> tuple[Path, ...]:
    """What a part reads: the file of its stage, and what lies beside it under the same name."""
    file = Path(artefact)
    beside = file.with_suffix(".json")
    return (file, beside) if beside.is_file() else (file,)


def send_files(control: Control, files: Sequence[Path]) -> None:
    """Piece by piece: no file is ever in memory as a whole. Raises: ShardLost."""
    for file in files:
        with file.open("rb") as stream:
            control.send(Piece(name=file.name))
            while data := stream.read(PIECE_BYTES):
                control.send(Piece(name=file.name, data=data))
    control.send(Piece(name=""))


def receive_files(control: Control, folder: Path) -> None:
    """Raises: ShardLost, and EngineFailed for a name that leads out of the folder."""
    while (piece := control.receive(Piece)).name:
        if Path(piece.name).name != piece.name:
            raise EngineFailed(f"a stage's file cannot be called {piece.name!r}")
        with (folder / piece.name).open("ab") as stream:
            stream.write(piece.data)
