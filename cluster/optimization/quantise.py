"""int8 variants of fetched models, with onnxruntime's quantisation tools."""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from cluster.config.model_card import ImagePreprocess, ModelCard
from cluster.errors import ConfigError
from cluster.optimization.samples import sample_file
from cluster.optimization.sources import DynamicInt8Recipe, StaticInt8Recipe
from cluster.optimization.workshop import Workshop
from cluster.processing.image import ImageReader
from cluster.tensors import Array


def build_static(
    name: str, version: str, recipe: StaticInt8Recipe, workshop: Workshop, folder: Path
) -> ModelCard:
    """Weights QInt8 per channel, activations QUInt8 with ranges seen on unlabelled crops (QDQ)."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    source = workshop.store.card(recipe.source)
    preprocess = source.preprocess
    if not isinstance(preprocess, ImagePreprocess):
        raise ConfigError(f"{name}: {recipe.source} takes no images, so it cannot be calibrated")
    tensor_name = preprocess.input
    reader = ImageReader(preprocess, source.raw_signature().inputs[0])
    images = list(calibration_images(recipe, workshop.store.root, reader))

    class Crops(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.remaining = iter(images)

        def get_next(self) -> dict[str, Array] | None:
            image = next(self.remaining, None)
            return None if image is None else {tensor_name: image}

    with workshop.progress.step(f"{name}: int8, calibrated on {len(images)} crops"):
        fp32 = workshop.store.folder(recipe.source) / source.artefact
        with _prepared(fp32) as prepared, _quiet():
            quantize_static(
                prepared,
                folder / "model.onnx",
                Crops(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    return _variant(
        source,
        workshop,
        folder,
        name=name,
        version=version,
        recipe="quant_pre_process, quantize_static: QDQ, per channel, QUInt8 activations, QInt8 "
        f"weights, {len(images)} crops of {len(recipe.pictures)} {recipe.calibration} pictures",
    )


def build_dynamic(
    name: str, version: str, recipe: DynamicInt8Recipe, workshop: Workshop, folder: Path
) -> ModelCard:
    """Weights QInt8 per channel; activations are quantised as they come.

    Per tensor loses more than a point of task accuracy and unsigned weights gain no speed (our
    measurement), so neither is an option here.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source = workshop.store.card(recipe.source)
    with workshop.progress.step(f"{name}: int8 weights per channel"), _quiet():
        quantize_dynamic(
            workshop.store.folder(recipe.source) / source.artefact,
            folder / "model.onnx",
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    return _variant(
        source,
        workshop,
        folder,
        name=name,
        version=version,
        recipe="quantize_dynamic: QInt8 weights per channel",
    )


def calibration_images(
    recipe: StaticInt8Recipe, root: Path, reader: ImageReader
) -> Iterator[Array]:
    """Crops of every picture in turn, prepared as serving does. Shapes: `[1, 3, size, size]`."""
    for picture in recipe.pictures:
        with Image.open(sample_file(root, recipe.calibration, picture)) as opened:
            image = opened.convert("RGB")
        for index in range(recipe.crops_per_picture):
            encoded = io.BytesIO()
            image.crop(crop_box(image.width, image.height, index)).save(encoded, "PNG")
            yield reader.read([encoded.getvalue()])


def crop_box(width: int, height: int, index: int) -> tuple[int, int, int, int]:
    """The whole picture first, then squares of 70 % along the diagonal: begin, middle, end.

    Units: pixels (left, top, right, bottom). Fixed, so that calibration can be repeated.
    """
    if index == 0:
        return (0, 0, width, height)
    side = int(min(width, height) * 0.7)
    position = ((index - 1) % 3) / 2
    left, top = int((width - side) * position), int((height - side) * position)
    return (left, top, left + side, top + side)


def _variant(
    source: ModelCard,
    workshop: Workshop,
    folder: Path,
    *,
    name: str,
    version: str,
    recipe: str,
) -> ModelCard:
    """The source's card with its side files, for the quantised artefact in `folder`."""
    for file in workshop.store.folder(source.name, source.version).iterdir():
        if file.name not in (source.artefact, "model.yaml"):
            shutil.copyfile(file, folder / file.name)
    made_from = f"made from {source.name} version {source.version}, sha256 {source.sha256}"
    provenance = source.provenance.model_copy(update={"recipe": recipe, "notes": made_from})
    return source.model_copy(
        update={
            "name": name,
            "version": version,
            "artefact": "model.onnx",
            "precision": "int8",
            "provenance": provenance,
        }
    )


@contextmanager
def _prepared(fp32: Path) -> Iterator[Path]:
    """Shapes inferred and batch norms folded: static quantisation is worse without."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as temporary:
        prepared = Path(temporary) / "prepared.onnx"
        with _quiet():
            quant_pre_process(fp32, prepared)
        yield prepared


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime advises pre-processing through the root logger, even after it has been done."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
