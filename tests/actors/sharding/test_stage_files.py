from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from actors.sharding.control import Control
from actors.sharding.stage_files import (
    PIECE_BYTES,
    Piece,
    files_of,
    receive_files,
    send_files,
)
from cluster.errors import EngineFailed


@pytest.fixture
def ends() -> Iterator[tuple[Control, Control]]:
    one, other = socket.socketpair()
    yield Control(one), Control(other)
    one.close()
    other.close()


def test_files_arrive_whole_whatever_their_size(
    ends: tuple[Control, Control], tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    content = {"stage-0.pt2": bytes(range(256)) * (PIECE_BYTES // 128), "stage-0.json": b""}
    for name, data in content.items():
        (here / name).write_bytes(data)

    sending = Thread(target=send_files, args=(ends[0], files_of(str(here / "stage-0.pt2"))))
    sending.start()
    receive_files(ends[1], there)
    sending.join()

    assert {file.name: file.read_bytes() for file in there.iterdir()} == content


def test_a_name_that_leads_out_of_the_folder_is_refused(
    ends: tuple[Control, Control], tmp_path: Path
) -> None:
    ends[0].send(Piece(name="../x", data=b"x"))

    with pytest.raises(EngineFailed, match=r"cannot be called '\.\./x'"):
        receive_files(ends[1], tmp_path)
    assert not (tmp_path.parent / "x").exists()
