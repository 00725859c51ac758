"""What a directory's image processor does, as the card's preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from cluster.config.model_card import ImagePreprocess
from cluster.errors import ConfigError
from cluster.optimization.huggingface.files import read_json

PROCESSOR = "preprocessor_config.json"
_RESAMPLE: dict[object, Literal["nearest", "bilinear", "bicubic"]] = {
    0: "nearest",
    2: "bilinear",
    3: "bicubic",
}
"""Pillow's numbers, which the file has."""
_HALVES = [0.5, 0.5, 0.5]


def image_processing(directory: Path, side: int) -> ImagePreprocess | None:
    """Of ViT's processor; None where the directory says nothing of pictures.

    `side`: of the picture that the model takes, in pixels. Defaults are those of transformers'
    `ViTImageProcessor`.
    Raises: ConfigError naming the setting that cannot be followed.
    """
    file = directory / PROCESSOR
    if not file.is_file():
        return None
    told = read_json(file)
    if not told.get("do_resize", True):
        raise _refused(file, "do_resize", told["do_resize"], "true")
    padding, fit = _cut(file, told, side)
    resample = told.get("resample", 2)
    if resample not in _RESAMPLE:
        raise _refused(file, "resample", resample, "0 (nearest), 2 (bilinear), 3 (bicubic)")
    is_rescaled, is_normalised = told.get("do_rescale", True), told.get("do_normalize", True)
    factor = told.get("rescale_factor", 1 / 255) if is_rescaled else 1.0
    if not isinstance(factor, int | float) or factor <= 0:
        raise _refused(file, "rescale_factor", factor, "a number above 0")
    mean = _three(file, told, "image_mean") if is_normalised else [0.0, 0.0, 0.0]
    std = _three(file, told, "image_std") if is_normalised else [1.0, 1.0, 1.0]
    if min(std) <= 0:
        raise _refused(file, "image_std", std, "numbers above 0")
    red, green, blue = (each / factor for each in mean)
    red_scale, green_scale, blue_scale = (each / factor for each in std)
    return ImagePreprocess(
        input="pixel_values",
        size=side,
        crop_padding=padding,
        fit=fit,
        mean=(red, green, blue),
        scale=(red_scale, green_scale, blue_scale),
        resample=_RESAMPLE[resample],
    )


def _cut(
    file: Path, told: Mapping[str, object], side: int
) -> tuple[int, Literal["crop", "stretch"]]:
    """How a picture that is no square becomes one: the padding around the crop, and the way."""
    size = told.get("size", {"height": side, "width": side})
    sizes = {"height": size, "width": size} if isinstance(size, int) else size
    crop = told.get("crop_size", side) if told.get("do_center_crop") else None
    edge = crop.get("height") if isinstance(crop, dict) else crop
    if crop is not None and edge != side:
        raise _refused(file, "crop_size", crop, f"{side}, the model's image_size")
    match sizes:
        case {"height": int(height), "width": int(width)} if (
            crop is None and height == width == side
        ):
            return 0, "stretch"
        case {"shortest_edge": int(shortest)} if crop is not None and shortest >= side:
            return shortest - side, "crop"
    allowed = f"{side} x {side}, or a shortest_edge with do_center_crop to {side}"
    raise _refused(file, "size", size, allowed)


def _three(file: Path, told: Mapping[str, object], key: str) -> list[float]:
    value = told.get(key, _HALVES)
    if isinstance(value, list) and len(value) == 3:
        found = [float(each) for each in value if isinstance(each, int | float)]
        if len(found) == 3:
            return found
    raise _refused(file, key, value, "three numbers")


def _refused(file: Path, key: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(
        f"{file}: {key} is {value!r}; allowed: {allowed}. Without the file the model is added with "
        "the tensor pixel_values as its input",
        file=str(file),
        key=key,
        value=str(value),
        allowed=allowed,
    )
