from __future__ import annotations

import gzip
import tracemalloc
import zlib
from pathlib import Path

import orjson
import pytest

from actors.listeners.compression import MAX_MEMBERS, expand, preferred_coding
from actors.listeners.http_messages import HttpReply
from cluster.errors import InvalidRequest, PayloadTooLarge, Unsupported
from tests.actors.listeners.doors import body_of, make_door, simple_body

INFER = "/v2/models/simple/infer"


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("deflate;q=1.0, gzip;q=0.5", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip;q=0.5, identity", "identity"),
        ("*", "gzip"),
        ("*;q=0", "identity"),
        ("gzip;q=0, *", "deflate"),
        ("br", "identity"),
        ("", "identity"),
        ("gzip;q=x", "identity"),
    ],
)
def test_the_callers_weights_choose_the_coding(accepted: str, chosen: str) -> None:
    assert preferred_coding(accepted) == chosen


@pytest.mark.parametrize("size", [10, 100_000])
async def test_every_form_of_gzip_and_deflate_is_expanded(size: int) -> None:
    body = bytes(i % 251 for i in range(size))
    bare = zlib.compressobj(9, zlib.DEFLATED, -15)

    assert await expand(gzip.compress(body), "gzip", size) == body
    assert await expand(gzip.compress(body[:5]) + gzip.compress(body[5:]), "GZIP", size) == body
    assert await expand(zlib.compress(body), "deflate", size) == body
    assert await expand(bare.compress(body) + bare.flush(), "deflate", size) == body
    assert await expand(body, "identity", 0) == body


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_bomb_is_given_up_at_the_limit(coding: str) -> None:
    squeeze = gzip.compress if coding == "gzip" else zlib.compress
    bomb = squeeze(b"\0" * 50_000_000)

    with pytest.raises(PayloadTooLarge, match="after decompression"):
        await expand(bomb, coding, 1000)


async def test_many_small_members_count_together() -> None:
    with pytest.raises(PayloadTooLarge):
        await expand(gzip.compress(b"x" * 100) * 50, "gzip", 1000)


async def test_the_number_of_members_is_limited() -> None:
    most = gzip.compress(b"") * (MAX_MEMBERS - 1) + gzip.compress(b"end")

    assert await expand(most, "gzip", 1000) == b"end"
    with pytest.raises(InvalidRequest, match=f"more than {MAX_MEMBERS} members"):
        await expand(most + gzip.compress(b""), "gzip", 1000)


async def test_a_member_copies_no_more_than_a_piece_of_what_follows() -> None:
    """The whole rest, copied for each member, made many members cost their square."""
    body = gzip.compress(b"x") + bytes(2_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="not gzip"):
            await expand(body, "gzip", 1000)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 500_000


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"x" * 100)[:-9], b"\x1f\x8b"])
async def test_damaged_data_is_the_callers_mistake(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not gzip"):
        await expand(body, "gzip", 1000)


async def test_another_coding_is_refused_with_those_that_are_taken(tmp_path: Path) -> None:
    with pytest.raises(Unsupported):
        await expand(b"x", "br", 10)

    reply = await make_door(tmp_path).ask("POST", INFER, simple_body(), content_encoding="br")

    assert reply.status == 501
    assert dict(reply.headers)["Accept-Encoding"] == "gzip, deflate"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_request_and_its_reply_travel_compressed(tmp_path: Path, coding: str) -> None:
    door = make_door(tmp_path)
    squeeze = gzip.compress if coding == "gzip" else zlib.compress
    widen = gzip.decompress if coding == "gzip" else zlib.decompress

    tensor = {"name": "INPUT0", "datatype": "BYTES", "shape": [1, 1], "data": ["x" * 5000]}

    reply = await door.ask(
        "POST",
        "/v2/models/simple_identity/infer",
        squeeze(orjson.dumps({"inputs": [tensor]})),
        content_encoding=coding,
        accept_encoding=coding,
    )

    answer = orjson.loads(widen(body_of(reply)))
    assert dict(reply.headers)["Content-Encoding"] == coding
    assert answer["outputs"][0]["data"] == ["x" * 5000]
    assert reply.num_bytes < 1000


async def test_a_small_reply_stays_as_it_is(tmp_path: Path) -> None:
    reply = await make_door(tmp_path).ask("GET", "/v2/health/live", accept_encoding="gzip")

    assert reply == HttpReply(status=200, chunks=(b'{"live":true}',))
