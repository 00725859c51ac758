"""Encoded pictures -> the float image that a vision model takes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cluster.config.model_card import ImagePreprocess
from cluster.errors import InvalidRequest
from cluster.tensors import NUMPY_DTYPES, Array, TensorSpec

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Nothing else is opened: some of Pillow's readers (EPS) start other programs."""

_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_PILLOW = re.compile(r"PIL(\.|$)")


class ImageReader:
    """Decodes, crops, resizes and normalises for one model. Safe to call from many threads."""

    def __init__(self, spec: ImagePreprocess, takes: TensorSpec) -> None:
        self._spec = spec
        self._dtype = NUMPY_DTYPES[takes.datatype]
        mean = np.asarray(spec.mean, dtype=np.float32)
        scale = np.asarray(spec.scale, dtype=np.float32)
        if spec.colour == "BGR":
            mean, scale = mean[::-1], scale[::-1]
        per_channel = (3, 1, 1) if spec.layout == "NCHW" else (3,)
        self._mean = mean.reshape(per_channel)
        self._scale = scale.reshape(per_channel)

    def read(self, items: Sequence[bytes], tensor: str = "image") -> Array:
        """Shapes: `[batch, 3, size, size]`, or `[batch, size, size, 3]` for layout NHWC.

        Raises: InvalidRequest naming the tensor, the element and what came instead of a picture.
        """
        size = self._spec.size
        one = (3, size, size) if self._spec.layout == "NCHW" else (size, size, 3)
        batch = np.empty((len(items), *one), dtype=np.float32)
        for index, item in enumerate(items):
            pixels = np.asarray(self._square(item, f"{tensor}[{index}]"))
            if self._spec.colour == "BGR":
                pixels = pixels[:, :, ::-1]
            if self._spec.layout == "NCHW":
                pixels = pixels.transpose(2, 0, 1)
            np.subtract(pixels, self._mean, out=batch[index])
            np.divide(batch[index], self._scale, out=batch[index])
        return batch if self._dtype == batch.dtype else batch.astype(self._dtype)

    def _square(self, data: bytes, place: str) -> Image.Image:
        """Shapes: `size` × `size`, mode RGB.

        The turn that a camera noted (EXIF orientation) is applied first: a photo is classified as
        people see it. Of an animation the first frame is taken; transparency is dropped, so that
        what a see-through pixel hides counts as its colour, as most decoders have it.
        """
        _silence_pillow()
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                self._check_size(image, place)
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                size = self._spec.size
                is_cut = self._spec.fit == "crop"
                kept = image.crop(self._centre(image.width, image.height)) if is_cut else image
                square = _as_rgb(kept)
                return square.resize((size, size), _RESAMPLE[self._spec.resample])
        except InvalidRequest:
            raise
        except Image.DecompressionBombError as error:
            raise InvalidRequest(f"{place}: the image is too large: {error}") from None
        except Exception as error:
            # For a file that is no picture, cut short or hostile, Pillow raises nearly anything.
            raise InvalidRequest(f"{place}: {_complaint(data, error)}") from None

    def _check_size(self, image: Image.Image, place: str) -> None:
        # The header is read, the pixels are not: a small file may unpack to gigabytes.
        pixels = image.width * image.height
        if pixels > self._spec.max_pixels:
            raise InvalidRequest(
                f"{place}: the image is too large: {image.width} x {image.height} = {pixels} "
                f"pixels, at most {self._spec.max_pixels} are allowed"
            )

    def _centre(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Source: EfficientNet's own evaluation code, `_decode_and_center_crop`."""
        size = self._spec.size
        side = max(1, int(min(width, height) * size / (size + self._spec.crop_padding)))
        left, top = (width - side + 1) // 2, (height - side + 1) // 2
        return left, top, left + side, top + side


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # 16 bits a pixel (PNG, TIFF): Pillow's own conversion would clip at 255, not scale.
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((wide // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("pictures of floating point numbers have no known range")
    if image.mode == "P":
        # By way of RGBA, as a palette may hold transparency; the result is the same without.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _complaint(data: bytes, error: Exception) -> str:
    if not data:
        return "empty, expected an encoded image"
    if isinstance(error, UnidentifiedImageError):
        start = data[:8].hex(" ")
        return (
            f"not an image in a known format ({', '.join(FORMATS)}): "
            f"{len(data)} bytes that begin with {start}"
        )
    return f"the image cannot be decoded ({len(data)} bytes): {type(error).__name__}: {error}"


def _silence_pillow() -> None:
    """Pillow warns of odd metadata, which a caller's file may always have.

    A filter by module instead of `catch_warnings`, which is not safe with threads; looked for each
    time, as a test runner resets the filters.
    """
    if not any(entry[3] is not None and entry[3] == _PILLOW for entry in warnings.filters):
        warnings.filters.insert(0, ("ignore", None, Warning, _PILLOW, 0))  # type: ignore[attr-defined]
