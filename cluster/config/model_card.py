"""`model.yaml`: what one model version in the store is.

The card lies beside the artefact at `<store>/<name>/<version>/model.yaml` and says everything that
serving needs: format, signature of the artefact, processing before and after it, provenance.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cluster.config.section import Section
from cluster.tensors import Datatype, Signature, TensorSpec

Format = Literal[
    "onnx",
    "openvino",
    "torchscript",
    "torch_export",
    "aot_inductor",
    "huggingface",
    "causal_lm",
    "python",
    "fake",
]


def _inside(path: str) -> str:
    """A card comes with its model, from a store that may be somebody's: what it names is hashed,
    loaded, shown to clients (labels) and, if its hash is wrong, deleted."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\0" in path:
        raise ValueError(f"{path!r} leads out of the version's folder; allowed: a path inside it")
    return path


InnerPath = Annotated[str, AfterValidator(_inside)]
"""Relative to the version's folder, and in it."""


class TensorCard(Section):
    """Shapes: whole, batch dimension first when `batched`; -1 is any size.

    `labels`, for an output of class scores: a file in the version's folder with a name a line, for
    the protocol's classification.
    """

    name: str
    datatype: Datatype
    shape: list[int]
    labels: InnerPath = ""

    def spec(self) -> TensorSpec:
        return TensorSpec(name=self.name, datatype=self.datatype, shape=tuple(self.shape))


class SignatureCard(Section):
    """What the model takes and gives, in the order of its own inputs and outputs."""

    inputs: list[TensorCard] = Field(min_length=1)
    outputs: list[TensorCard] = Field(min_length=1)


class ImagePreprocess(Section):
    """JPEG, PNG, WebP, … bytes -> the artefact's float image.

    `(pixel - mean) / scale` per channel on RGB 0..255, after a centre crop of side
    `min(w, h) * size / (size + crop_padding)` and a resize to `size` × `size`. `fit: stretch`
    resizes the whole picture, whatever its shape, as ViT's own processor does.
    """

    kind: Literal["image"] = "image"
    input: str
    size: int = Field(gt=0)
    crop_padding: int = Field(default=32, ge=0)
    fit: Literal["crop", "stretch"] = "crop"
    mean: tuple[float, float, float] = (127.0, 127.0, 127.0)
    scale: tuple[float, float, float] = (128.0, 128.0, 128.0)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    colour: Literal["RGB", "BGR"] = "RGB"
    resample: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    max_pixels: int = Field(default=50_000_000, gt=0)


class TextPreprocess(Section):
    """UTF-8 text -> `input_ids`, `attention_mask`, `token_type_ids` (those the artefact takes).

    Padded to the longest of the batch; longer texts are cut at `max_tokens`.
    """

    kind: Literal["text"] = "text"
    tokenizer: InnerPath = "tokenizer.json"
    max_tokens: int = Field(default=128, gt=2)


Preprocess = Annotated[ImagePreprocess | TextPreprocess, Field(discriminator="kind")]


class ClassifyPostprocess(Section):
    """Logits -> the `top_k` labels with their probabilities, best first."""

    kind: Literal["classify"] = "classify"
    input: str
    labels: InnerPath = "labels.txt"
    top_k: int = Field(default=5, gt=0)


class MeanPoolPostprocess(Section):
    """Token vectors -> one vector a text: mean over the attention mask, then L2-normalised."""

    kind: Literal["mean_pool"] = "mean_pool"
    input: str
    normalise: bool = True


class BinaryPostprocess(Section):
    """A probability [batch, 1] -> `label` (negative, positive) and `score` (of the positive)."""

    kind: Literal["binary"] = "binary"
    input: str
    labels: tuple[str, str] = ("negative", "positive")
    threshold: float = 0.5


Postprocess = Annotated[
    ClassifyPostprocess | MeanPoolPostprocess | BinaryPostprocess, Field(discriminator="kind")
]


class Provenance(Section):
    """Where the artefact came from and how it was made."""

    package: str = ""
    package_version: str = ""
    package_sha256: str = ""
    file: str = ""
    licence: str = ""
    recipe: str = ""
    notes: str = ""


class ModelCard(Section):
    """One model version.

    `artefact` is a path inside the version's folder (a file, or `.` for a directory format);
    `sha256` is of that file, checked before it is loaded. `python_class` is `module:Class`, for
    format `python` only. `batched`: the artefact takes a leading batch dimension of any size.
    `decoupled`: one request has any number of responses (formats `python`,
    `causal_lm`, a Hugging Face directory of a model that generates text, and `huggingface`, of one
    that generates tokens).
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = Field(default="1", pattern=r"^[0-9]+$")
    format: Format
    artefact: InnerPath = ""
    sha256: str = ""
    python_class: str = ""
    precision: Literal["fp32", "fp16", "bf16", "int8", "int8-weights", "int4-weights", "mixed"] = (
        "fp32"
    )
    batched: bool = True
    decoupled: bool = False
    signature: SignatureCard
    preprocess: Preprocess | None = None
    postprocess: Postprocess | None = None
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _can_be_decoupled(self) -> Self:
        if self.decoupled and self.format not in ("python", "causal_lm", "huggingface"):
            allowed = "python, causal_lm or huggingface"
            raise ValueError(f"decoupled needs format {allowed}, not {self.format}")
        if self.decoupled and (self.preprocess or self.postprocess):
            raise ValueError("decoupled excludes preprocess and postprocess")
        return self

    def raw_signature(self) -> Signature:
        """The artefact's own tensors, without any processing."""
        return Signature(
            inputs=tuple(card.spec() for card in self.signature.inputs),
            outputs=tuple(card.spec() for card in self.signature.outputs),
        )

    def public_signature(self) -> Signature:
        """What clients see: processing replaces the artefact's own inputs and outputs."""
        raw = self.raw_signature()
        inputs, outputs = raw.inputs, raw.outputs
        extra: tuple[TensorSpec, ...] = ()
        match self.preprocess:
            case ImagePreprocess():
                inputs = (TensorSpec(name="image", datatype="BYTES", shape=(-1,)),)
            case TextPreprocess():
                inputs = (TensorSpec(name="text", datatype="BYTES", shape=(-1,)),)
            case None:
                pass
        match self.postprocess:
            case ClassifyPostprocess(input=name, top_k=top_k):
                logits = raw.output(name)
                num_classes = logits.shape[-1] if logits else -1
                outputs = (
                    TensorSpec(name="labels", datatype="BYTES", shape=(-1, top_k)),
                    TensorSpec(name="scores", datatype="FP32", shape=(-1, top_k)),
                )
                extra = (
                    TensorSpec(name="probabilities", datatype="FP32", shape=(-1, num_classes)),
                )
            case MeanPoolPostprocess(input=name):
                vectors = raw.output(name)
                width = vectors.shape[-1] if vectors else -1
                outputs = (TensorSpec(name="embedding", datatype="FP32", shape=(-1, width)),)
            case BinaryPostprocess():
                outputs = (
                    TensorSpec(name="label", datatype="BYTES", shape=(-1,)),
                    TensorSpec(name="score", datatype="FP32", shape=(-1,)),
                )
            case None:
                pass
        return Signature(inputs=inputs, outputs=outputs, extra_outputs=extra)
