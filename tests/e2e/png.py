"""A small valid picture, made here."""

from __future__ import annotations

import io

from PIL import Image


def plain_png(side: int = 32) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (side, side), (200, 120, 40)).save(sink, "PNG")
    return sink.getvalue()
