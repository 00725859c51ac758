from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cluster.config.model_card import ImagePreprocess
from cluster.errors import InvalidRequest
from cluster.processing.image import ImageReader
from cluster.tensors import Array, Datatype, TensorSpec

SIZE = 16
PLAIN = ImagePreprocess(
    input="image", size=SIZE, crop_padding=0, mean=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0)
)


def reader(spec: ImagePreprocess = PLAIN, datatype: Datatype = "FP32") -> ImageReader:
    return ImageReader(spec, TensorSpec(name="image", datatype=datatype, shape=(-1, 3, 16, 16)))


def changed(**fields: object) -> ImagePreprocess:
    return PLAIN.model_copy(update=fields)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def filled(mode: str, colour: object, size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]


def palette(red: int, green: int, blue: int) -> Image.Image:
    image = filled("P", 1)
    image.putpalette([0, 0, 0, red, green, blue])
    return image


def channels(batch: Array) -> list[float]:
    """The one value of each channel of a picture of one colour."""
    assert batch.shape == (1, 3, SIZE, SIZE)
    assert (batch == batch[:, :, :1, :1]).all()
    return [float(value) for value in batch[0, :, 0, 0]]


def test_pixels_are_shifted_and_scaled_exactly() -> None:
    spec = ImagePreprocess(input="image", size=SIZE)
    batch = reader(spec).read([encoded(filled("RGB", (0, 127, 255)))])

    assert batch.dtype == np.float32
    assert channels(batch) == [-127 / 128, 0.0, 1.0]


def test_mean_and_scale_are_per_channel_and_follow_the_colour_into_bgr() -> None:
    fields = {"mean": (1.0, 2.0, 3.0), "scale": (1.0, 2.0, 4.0)}
    png = encoded(filled("RGB", (11, 22, 43)))

    assert channels(reader(changed(**fields)).read([png])) == [10.0, 10.0, 10.0]
    assert channels(reader(changed(colour="BGR")).read([png])) == [43.0, 22.0, 11.0]
    swapped = {"mean": (1.0, 2.0, 0.0), "colour": "BGR"}
    assert channels(reader(changed(**swapped)).read([png])) == [43.0, 20.0, 10.0]


def test_the_channels_may_come_last() -> None:
    batch = reader(changed(layout="NHWC")).read([encoded(filled("RGB", (1, 2, 3)))] * 2)

    assert batch.shape == (2, SIZE, SIZE, 3)
    assert batch[1, 5, 7].tolist() == [1, 2, 3]


def test_an_artefact_of_another_float_gets_it() -> None:
    assert reader(datatype="FP16").read([encoded(filled("L", 7))]).dtype == np.float16


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (filled("RGB", (10, 20, 30)), "PNG", [10, 20, 30]),
        (filled("RGB", (10, 20, 30)), "BMP", [10, 20, 30]),
        (filled("RGB", (10, 20, 30)), "TIFF", [10, 20, 30]),
        (filled("RGBA", (10, 20, 30, 128)), "PNG", [10, 20, 30]),
        (filled("LA", (50, 0)), "PNG", [50, 50, 50]),
        (filled("L", 50), "PNG", [50, 50, 50]),
        (filled("1", 1), "PNG", [255, 255, 255]),
        (palette(10, 20, 30), "PNG", [10, 20, 30]),
        (filled("CMYK", (0, 255, 255, 0)), "TIFF", [255, 0, 0]),
        (filled("I;16", 50 * 257), "PNG", [50, 50, 50]),
    ],
)
def test_every_colour_model_becomes_rgb(
    image: Image.Image, kind: str, expected: list[float]
) -> None:
    assert channels(reader().read([encoded(image, kind)])) == expected


def test_a_palette_with_transparency_becomes_rgb_without_a_warning() -> None:
    png = encoded(palette(10, 20, 30), transparency=bytes([255, 0]))

    assert channels(reader().read([png])) == [10, 20, 30]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_are_read_closely(kind: str) -> None:
    found = channels(reader().read([encoded(filled("L", 100), kind)]))

    assert found == pytest.approx([100] * 3, abs=3)


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [filled("L", value) for value in (0, 255)]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])

    assert channels(reader().read([gif])) == [0, 0, 0]


def test_a_jpeg_of_four_inks_is_read() -> None:
    red = encoded(filled("CMYK", (0, 255, 255, 0)), "JPEG", quality=95)

    assert channels(reader().read([red])) == pytest.approx([255, 0, 0], abs=8)


def test_the_middle_square_is_taken() -> None:
    """Of 64 x 48 with a padding as large as the size: the middle 24 x 24."""
    image = filled("L", 0, (64, 48))
    image.paste(200, (20, 12, 44, 36))
    png = encoded(image)

    assert channels(reader(changed(crop_padding=SIZE)).read([png])) == [200] * 3
    assert reader().read([png]).min() == 0


def test_a_resize_is_pillows_own_on_the_cropped_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    side = int(40 * 16 / 48)
    left, top = (52 - side + 1) // 2, (40 - side + 1) // 2
    square = image.crop((left, top, left + side, top + side))
    expected = np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC))

    found = reader(changed(crop_padding=32)).read([encoded(image)])[0].transpose(1, 2, 0)

    np.testing.assert_array_equal(found, expected)


def test_the_turn_that_a_camera_noted_is_applied() -> None:
    upright = filled("RGB", (0, 0, 0))
    upright.paste((255, 255, 255), (0, 0, SIZE, SIZE // 2))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 270 degrees to see it upright

    found = reader().read([encoded(turned, exif=exif)])

    np.testing.assert_array_equal(found, reader().read([encoded(upright)]))


def test_a_single_pixel_and_a_thin_line_are_pictures() -> None:
    assert channels(reader().read([encoded(filled("L", 9, (1, 1)))])) == [9, 9, 9]
    assert channels(reader().read([encoded(filled("L", 9, (900, 1)))])) == [9, 9, 9]


WHOLE = encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64), np.uint8)))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", r"image\[1\]: empty"),
        (b"hello, world", r"image\[1\]: not an image .*12 bytes that begin with 68 65 6c 6c 6f"),
        (WHOLE[: len(WHOLE) // 2], r"image\[1\]: the image cannot be decoded"),
        (WHOLE[:20], r"image\[1\]: "),
        (WHOLE[:60] + bytes(40) + WHOLE[100:], r"image\[1\]: the image cannot be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image in a known format"),
        (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "floating point"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_place_and_the_next_is_read(
    data: bytes, says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        reader().read([WHOLE, data])

    assert reader().read([WHOLE]).shape == (1, 3, SIZE, SIZE)


def bomb(width: int, height: int) -> bytes:
    """A PNG header that promises pixels and has none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


@pytest.mark.parametrize("size", [(8_000, 7_000), (10_000, 10_000), (60_000, 60_000)])
def test_more_pixels_than_allowed_are_refused_before_they_are_unpacked(
    size: tuple[int, int],
) -> None:
    with pytest.raises(InvalidRequest, match=r"image\[0\]: the image is too large"):
        reader().read([bomb(*size)])


def test_the_limit_is_the_cards() -> None:
    spec = changed(max_pixels=100)
    with pytest.raises(InvalidRequest, match="16 x 16 = 256 pixels, at most 100"):
        reader(spec).read([encoded(filled("L", 0))])


def test_odd_metadata_warns_nobody() -> None:
    jpeg = encoded(filled("L", 9), "JPEG")
    bad_exif = b"\xff\xe1" + struct.pack(">H", 2 + 18) + b"Exif\0\0II*\0\x08\0\0\0\x05\0\0\0"

    assert reader().read([jpeg[:2] + bad_exif + jpeg[2:]]).shape == (1, 3, SIZE, SIZE)


def test_no_pictures_are_an_empty_batch() -> None:
    assert reader().read([]).shape == (0, 3, SIZE, SIZE)
