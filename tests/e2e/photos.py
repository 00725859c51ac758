"""The labelled photos, and what ONNX Runtime says of them without any server."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from cluster.config.model_card import ImagePreprocess
from cluster.config.store import ModelStore
from cluster.tensors import Array


def foolbox_photos(store: ModelStore) -> list[tuple[Path, int]]:
    """The 20 ImageNet photos and their class, which stands in the file's name."""
    folder = store.root / ".samples" / "foolbox"
    found = [(path, int(path.stem.split("_")[2])) for path in sorted(folder.glob("imagenet_*.jpg"))]
    assert len(found) == 20
    return found


def pixels(photo: bytes, size: int) -> Array:
    """EfficientNet-Lite's preprocessing, written again from its description: an independent check.

    Centre crop of side min(w, h) * size / (size + 32) with offsets rounded up, bicubic to size,
    (x - 127) / 128, NCHW. Source: EfficientNet, `preprocessing.py: _decode_and_center_crop`.
    """
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    width, height = image.size
    side = int(size / (size + 32) * min(width, height))
    left, top = (width - side + 1) // 2, (height - side + 1) // 2
    image = image.crop((left, top, left + side, top + side))
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    return ((np.asarray(image, np.float32) - 127.0) / 128.0).transpose(2, 0, 1)[None]


def direct_probabilities(store: ModelStore, model: str, photo: bytes) -> Array:
    """Softmax of the model's logits [1000], by ONNX Runtime alone."""
    preprocess = store.card(model).preprocess
    assert isinstance(preprocess, ImagePreprocess)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    artefact = store.folder(model, "") / "model.onnx"
    session = onnxruntime.InferenceSession(artefact, options, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"image": pixels(photo, preprocess.size)})[0][0].astype(np.float64)
    exponents = np.exp(logits - logits.max())
    return np.asarray(exponents / exponents.sum())
