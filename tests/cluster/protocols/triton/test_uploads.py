from __future__ import annotations

import pytest

from cluster.errors import InvalidRequest, SquadronError
from cluster.protocols.triton.uploads import UploadedFile, uploaded_files


def test_a_plain_name_in_a_numbered_version_is_taken() -> None:
    found = uploaded_files({"file:12/model.onnx": b"x"})

    assert found == (UploadedFile(version=12, name="model.onnx", content=b"x"),)


@pytest.mark.parametrize(
    "key",
    [
        "file:/etc/passwd", "file:1//etc/passwd", "file:../1/m.onnx", "file:1/../m.onnx",
        "file:1/..", "file:1/.", "file:1/", "file:1", "file:", "file:1/a/b.onnx", "file:01/m.onnx",
        "file:-1/m.onnx", "file:x/m.onnx", "file:1/.hidden", "file:1/a\\b", "file:1/a\0b",
        "file:1/a b", "file:²/m.onnx", "file:1/~", "file:0/m.onnx",
        f"file:{'9' * 19}/m.onnx",
    ],
)  # fmt: skip
def test_nothing_leads_out_of_the_folder(key: str) -> None:
    with pytest.raises(InvalidRequest):
        uploaded_files({key: b""})


def test_a_name_of_256_characters_fails_to_poll_as_with_triton() -> None:
    for key in ("file:" + "a" * 256, "file:1/" + "a" * 256):
        with pytest.raises(SquadronError, match="failed to poll from model repository") as caught:
            uploaded_files({key: b""})
        assert (caught.value.http_status, caught.value.grpc_status) == (500, "INTERNAL")
