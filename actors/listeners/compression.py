"""HTTP bodies that travel compressed: gzip and deflate, both ways.

A body is never expanded beyond the limit, whatever it claims: a bomb costs its limit and no more.
Small bodies are worked on at once, larger ones in a thread, so that the loop goes on.
Source: protocol section 5.7.
"""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import replace
from typing import Literal

from actors.listeners.http_messages import HttpReply
from cluster.errors import InvalidRequest, PayloadTooLarge, Unsupported

Coding = Literal["gzip", "deflate", "identity"]

ACCEPTED = "gzip, deflate"
MIN_COMPRESSED_BYTES = 1024
"""Smaller replies stay as they are: they fit into a packet either way."""

_OFF_LOOP_BYTES = 64 * 1024
_EXPANDED_AT_ONCE_BYTES = 1024
"""At most a thousand times as much comes out: a millisecond of the loop."""

MAX_MEMBERS = 4096
"""Of a gzip body: each costs its own decoder, and empty ones come to no bytes at all. Tools that
compress in blocks make one for every 64 KiB or more."""

_PIECE_BYTES = 64 * 1024
_LEVEL = 1
_WBITS: dict[Coding, int] = {"gzip": 31, "deflate": 15}


async def expand(body: bytes, coding: str, limit: int) -> bytes:
    """The body as it was before `Content-Encoding: coding`.

    Raises: Unsupported for another coding; InvalidRequest for damaged data; PayloadTooLarge when
    more than `limit` bytes come out.
    """
    named = coding.strip().lower()
    if named in ("", "identity"):
        return body
    if named not in _WBITS:
        raise Unsupported(
            f"content encoding {coding[:40]!r} is not supported; allowed: {ACCEPTED}, identity",
            accept_encoding=ACCEPTED,
        )
    known: Coding = "gzip" if named == "gzip" else "deflate"
    if len(body) < _EXPANDED_AT_ONCE_BYTES:
        return _expanded(body, known, limit)
    return await asyncio.to_thread(_expanded, body, known, limit)


def _expanded(body: bytes, coding: Coding, limit: int) -> bytes:
    # `deflate` is zlib's format; some callers send the bare stream, which cannot begin like it.
    wbits = _WBITS[coding]
    if coding == "deflate" and not _is_zlib(body):
        wbits = -15
    view = memoryview(body)
    parts: list[bytes] = []
    left, at, num_members = limit, 0, 0
    while at < len(view):
        num_members += 1
        if num_members > MAX_MEMBERS:
            raise InvalidRequest(f"the body has more than {MAX_MEMBERS} members of {coding}")
        if num_members > 1 and coding != "gzip":
            raise InvalidRequest(f"the body is not {coding}: bytes follow its end")
        decoder = zlib.decompressobj(wbits)
        while not decoder.eof:
            # The decoder copies what it was given beyond a member's end: never the whole rest.
            piece = view[at : at + _PIECE_BYTES]
            if not piece:
                raise InvalidRequest(f"the body is not {coding}: it ends too early")
            try:
                part = decoder.decompress(piece, left + 1)
            except zlib.error as error:
                raise InvalidRequest(f"the body is not {coding}: {error}") from None
            left -= len(part)
            if left < 0:
                raise PayloadTooLarge(
                    f"the body has more than {limit} bytes after decompression, at most {limit} "
                    "are allowed"
                )
            parts.append(part)
            at += len(piece) - len(decoder.unused_data)
    return b"".join(parts)


def _is_zlib(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0


async def compress(reply: HttpReply, accept_encoding: str) -> HttpReply:
    """The reply in the coding that the caller likes best; itself when small."""
    size = reply.num_bytes
    if size < MIN_COMPRESSED_BYTES:
        return reply
    coding = preferred_coding(accept_encoding)
    if coding == "identity":
        return reply
    if size < _OFF_LOOP_BYTES:
        chunks = _compressed(reply.chunks, coding)
    else:
        chunks = await asyncio.to_thread(_compressed, reply.chunks, coding)
    headers = (*reply.headers, ("Content-Encoding", coding), ("Vary", "Accept-Encoding"))
    return replace(reply, chunks=chunks, headers=headers)


def _compressed(chunks: tuple[bytes | memoryview, ...], coding: Coding) -> tuple[bytes, ...]:
    encoder = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WBITS[coding])
    return (*(encoder.compress(chunk) for chunk in chunks), encoder.flush())


def preferred_coding(accept_encoding: str) -> Coding:
    """By the q-values of `Accept-Encoding`; gzip goes before deflate before identity.

    A coding that is not named counts as `*` does; without `*` only identity is welcome.
    """
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        name, _, parameters = part.partition(";")
        weights[name.strip()] = _weight(parameters)
    anything = weights.get("*", 0.0)
    gzip = weights.get("gzip", anything)
    deflate = weights.get("deflate", anything)
    identity = weights.get("identity", 0.0)
    if gzip > 0 and gzip >= max(deflate, identity):
        return "gzip"
    if deflate > 0 and deflate >= identity:
        return "deflate"
    return "identity"


def _weight(parameters: str) -> float:
    key, _, value = parameters.strip().partition("=")
    if key.strip() != "q":
        return 1.0
    try:
        return min(1.0, max(0.0, float(value)))
    except ValueError:
        return 0.0
