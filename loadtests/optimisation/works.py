"""What is optimised for the table: the model, its data, the recipes tried and the goal."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from cluster.config.model_card import ImagePreprocess, ModelCard, TextPreprocess
from cluster.config.store import ModelStore
from cluster.optimization.archive import extract_directory
from cluster.optimization.download import ArchiveCache
from cluster.optimization.efficientnet import load_network
from cluster.optimization.encoder import load_encoder
from cluster.optimization.gate.gate import GateLimits
from cluster.optimization.intake.data import Dataset
from cluster.optimization.progress import Silent
from cluster.optimization.samples import SAMPLES_FOLDER, held_out_reviews
from cluster.optimization.search.recipe import Tuning
from cluster.optimization.sources import EfficientNetRecipe, EncoderRecipe, load_sources
from cluster.optimization.training.lessons import Schedule
from cluster.optimization.workshop import Workshop
from cluster.processing.image import ImageReader
from cluster.processing.pipeline import Pipeline
from cluster.tensors import Array, bytes_array
from loadtests.optimisation.networks import Gpt2Decode, ResNet50, Yolo
from loadtests.optimisation.sentences import labelled

SPEED_ONLY = GateLimits(min_cosine=0, min_cosine_of_any=0, min_top1_agreement=0)
"""Random weights: agreement on noise is printed, and judged by nobody."""
VISION = ("onnxruntime-fp32", "openvino-fp32", "openvino-bf16", "onnxruntime-int8-static",
          "openvino-int8")  # fmt: skip
TRAINED_VISION = (*VISION, "onnxruntime-mixed")
TEXT = ("onnxruntime-fp32", "onnxruntime-fp32-fused", "openvino-bf16", "onnxruntime-int8-dynamic",
        "onnxruntime-int8-dynamic-fused", "openvino-int8")  # fmt: skip
DECODE = (
    "onnxruntime-fp32", "openvino-bf16", "onnxruntime-int8-dynamic", "onnxruntime-int8-weights",
    "onnxruntime-int4-weights", "openvino-int8-weights",
)  # fmt: skip
THINNED = (
    "onnxruntime-fp32", "onnxruntime-fp32-pruned-channels", "onnxruntime-fp32-pruned-weights",
    "onnxruntime-fp32-low-rank",
)  # fmt: skip
NUM_CROPS = 1200
"""Three quarters of them judge: 900, for an interval of a point or so to both sides."""
FREE_PICTURES = (
    "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "astronaut.png", "retina.jpg",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OptimisationWork:
    """`make` gives the module, one row of inputs and the data. `goal`: speed-up over eager fp32
    that the issue asks for."""

    name: str
    says: str
    recipes: tuple[str, ...]
    make: Callable[[Path], tuple[Any, dict[str, Array], Dataset]]
    goal: float | None = None
    limits: GateLimits = SPEED_ONLY
    tuning: Tuning = field(default_factory=Tuning)


def _random(example: dict[str, Array], num: int = 6) -> Dataset:
    """Rows like the example: floats drawn anew, integers kept."""
    draw = np.random.default_rng(1)
    items = tuple(
        {
            name: draw.standard_normal(array.shape).astype(array.dtype)
            if array.dtype.kind == "f"
            else array
            for name, array in example.items()
        }
        for _ in range(num)
    )
    return Dataset(origin=f"{num} random inputs", is_real=False, items=items)


def _image(side: int) -> dict[str, Array]:
    return {"image": np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)}


def _resnet(store: Path) -> tuple[Any, dict[str, Array], Dataset]:
    return ResNet50(), _image(224), _random(_image(224))


def _yolo(store: Path) -> tuple[Any, dict[str, Array], Dataset]:
    return Yolo(), _image(320), _random(_image(320))


def _gpt2(store: Path) -> tuple[Any, dict[str, Array], Dataset]:
    past = np.random.default_rng(0).normal(size=(12, 12, 128, 64)).astype(np.float32)
    example = {"input_ids": np.array([[464]]), "keys": past, "values": past}
    return Gpt2Decode(), example, _random(example, 4)


def _bert(store: Path) -> tuple[Any, dict[str, Array], Dataset]:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    bert = BertModel(BertConfig(attn_implementation="eager")).eval()

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.bert(
                input_ids=input_ids, attention_mask=attention_mask
            ).last_hidden_state
            return found

    draw = np.random.default_rng(0)
    mask = np.ones((1, 128), np.int64)
    items = tuple(
        {"input_ids": draw.integers(0, 30522, (1, 128)), "attention_mask": mask} for _ in range(6)
    )
    data = Dataset(origin="6 rows of random tokens", is_real=False, items=items)
    return Encoder().eval(), items[0], data


def _workshop(store: Path) -> Workshop:
    return Workshop(
        sources=load_sources(),
        cache=ArchiveCache(store / ".archives"),
        store=ModelStore(store),
        progress=Silent(),
    )


def _efficientnet(name: str) -> Callable[[Path], tuple[Any, dict[str, Array], Dataset]]:
    def make(store: Path) -> tuple[Any, dict[str, Array], Dataset]:
        workshop = _workshop(store)
        recipe = workshop.sources.models[name].recipe
        assert isinstance(recipe, EfficientNetRecipe)
        crops = picture_crops(store, ModelStore(store).card(name), NUM_CROPS)
        return load_network(recipe, workshop), crops.items[0], crops

    return make


def picture_crops(store: Path, card: ModelCard, num: int) -> Dataset:
    """Random crops (a quarter to all of the side) of the photos: unlabelled, for agreement."""
    preprocess = card.preprocess
    assert isinstance(preprocess, ImagePreprocess)
    reader = ImageReader(preprocess, card.raw_signature().inputs[0])
    folder = store / SAMPLES_FOLDER
    photos = [*sorted((folder / "foolbox").glob("*.jpg"))]
    photos += [folder / "scikit-image" / name for name in FREE_PICTURES]
    draw = Random(7)
    items = []
    for index in range(num):
        with Image.open(photos[index % len(photos)]) as opened:
            image = opened.convert("RGB")
        side = int(min(image.size) * draw.uniform(0.4, 1))
        left, top = draw.randint(0, image.width - side), draw.randint(0, image.height - side)
        encoded = io.BytesIO()
        image.crop((left, top, left + side, top + side)).save(encoded, "PNG", compress_level=1)
        items.append({preprocess.input: reader.read([encoded.getvalue()])})
    origin = f"{num} unlabelled crops of {len(photos)} photos"
    return Dataset(origin=origin, is_real=True, items=tuple(items))


NAMES = ("input_ids", "attention_mask", "token_type_ids")


def _encoder(workshop: Workshop) -> torch.nn.Module:
    recipe = workshop.sources.models["all-minilm-l6-v2"].recipe
    assert isinstance(recipe, EncoderRecipe)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        archive = workshop.archive(recipe.directory.archive)
        extract_directory(archive, recipe.directory.path, directory)
        return load_encoder(directory, NAMES)[0]


def _sentiment(store: Path) -> tuple[Any, dict[str, Array], Dataset]:
    workshop = _workshop(store)
    net, data = labelled(workshop, _encoder(workshop))
    return net, data.items[0], data


def _minilm(store: Path) -> tuple[Any, dict[str, Array], Dataset]:
    encoder = _encoder(_workshop(store))

    class ThreeInputs(torch.nn.Module):
        """Named arguments, which the exporter can give free sizes."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(
            self, input_ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor
        ) -> torch.Tensor:
            found: torch.Tensor = self.encoder(input_ids, mask, kinds)
            return found

    card = ModelStore(store).card("all-minilm-l6-v2")
    assert isinstance(card.preprocess, TextPreprocess)
    pipeline = Pipeline(card, ModelStore(store).folder("all-minilm-l6-v2"))
    # Reviews are short: four under each other make rows of about 128 tokens, padded to that.
    reviews = [each.text for each in held_out_reviews(store, 800)]
    items = []
    for start in range(0, len(reviews), 5):
        text = " ".join(reviews[start : start + 5]).encode()
        arrays = pipeline.prepare({"text": bytes_array([text], (1,))}).arrays
        items.append({name: _to_128(arrays[name]) for name in NAMES})
    origin = f"{len(items)} texts of 5 film reviews, 128 tokens"
    return ThreeInputs().eval(), items[0], Dataset(origin=origin, is_real=True, items=tuple(items))


def _to_128(array: Array) -> Array:
    return np.pad(array, ((0, 0), (0, 128 - array.shape[1])))


WORKS: tuple[OptimisationWork, ...] = (
    OptimisationWork(
        name="resnet50", says="ResNet-50-shaped, random weights, 224 x 224", recipes=VISION,
        make=_resnet, goal=5.0,
    ),
    OptimisationWork(
        name="bert-base", says="BERT-base-shaped, random weights, 128 tokens", recipes=TEXT,
        make=_bert, goal=4.3,
    ),
    OptimisationWork(
        name="gpt2-decode", says="GPT-2-shaped, random weights, one token, 128 cached",
        recipes=DECODE, make=_gpt2, goal=4.0,
    ),
    OptimisationWork(
        name="yolo", says="YOLOv5s-shaped, random weights, 320 x 320", recipes=VISION,
        make=_yolo, goal=4.4,
    ),
    OptimisationWork(
        name="efficientnet-lite0", says="trained, 224 x 224", recipes=TRAINED_VISION,
        make=_efficientnet("efficientnet-lite0"), limits=GateLimits(),
    ),
    OptimisationWork(
        name="efficientnet-lite2", says="trained, 260 x 260", recipes=TRAINED_VISION,
        make=_efficientnet("efficientnet-lite2"), limits=GateLimits(),
    ),
    OptimisationWork(
        name="resnet50-thinned", says="ResNet-50-shaped, random weights, half of it pruned",
        recipes=THINNED, make=_resnet, tuning=Tuning(prune_ratio=0.5),
    ),
    OptimisationWork(
        name="minilm-thinned", says="all-MiniLM-L6-v2, pruned by 30 %, 80 % of the energy, taught",
        recipes=(*THINNED, "onnxruntime-int8-dynamic", "onnxruntime-int8-dynamic-trained"),
        make=_minilm, limits=GateLimits(),
        tuning=Tuning(
            prune_ratio=0.3, rank_energy=0.8,
            schedule=Schedule(steps=30, batch_size=8, learning_rate=2e-4),
        ),
    ),
    OptimisationWork(
        name="minilm", says="all-MiniLM-L6-v2, trained, 128 tokens", recipes=TEXT,
        make=_minilm, limits=GateLimits(),
    ),
    OptimisationWork(
        name="minilm-sentiment", says="all-MiniLM-L6-v2 with a trained head, labels, 48 tokens",
        recipes=TEXT, make=_sentiment, limits=GateLimits(),
    ),
)  # fmt: skip
