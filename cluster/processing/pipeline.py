"""What happens before and after the engine: a request's tensors -> the artefact's, and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.config.batching.ragged import RaggedConfig
from cluster.config.model_card import (
    BinaryPostprocess,
    ClassifyPostprocess,
    ImagePreprocess,
    MeanPoolPostprocess,
    ModelCard,
    TextPreprocess,
)
from cluster.errors import ConfigError
from cluster.processing.binary import decide
from cluster.processing.classify import Classifier
from cluster.processing.image import ImageReader
from cluster.processing.padding import Padding
from cluster.processing.pool import mean_pool
from cluster.processing.ragged import Ragged
from cluster.processing.signature_check import check_inputs
from cluster.processing.text import IDS, MASK, TextReader, pad_together
from cluster.tensors import Array, Signature, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """One request's rows as the artefact takes them; those of equal `shape_key` share a batch.

    `length`: tokens of the longest row of a text, or of the axis that is padded (0: neither), which
    padding can bring to that of others.
    """

    arrays: dict[str, Array]
    rows: int
    shape_key: Hashable = None
    length: int = 0


class Pipeline:
    """The processing of one model: `prepare` a request, `merge` requests, `finish` the batch.

    `prepare` may run in any number of threads while another computes. With `raw` the artefact's
    own tensors are served and the card's processing is left out. `pad_values`: see `Padding`,
    `ragged`: see `Ragged`.

    Raises: ConfigError for processing that does not fit the artefact, or whose files are missing.
    """

    def __init__(
        self,
        card: ModelCard,
        folder: Path,
        raw: bool = False,
        pad_values: Mapping[str, float] | None = None,
        ragged: RaggedConfig | None = None,
    ) -> None:
        self._is_batched = card.batched or ragged is not None
        self._artefact = card.raw_signature()
        self._ragged: Ragged | None = None
        self.signature: Signature = self._artefact if raw else card.public_signature()
        if ragged is not None:
            self._ragged = ragged_of(card, ragged)
            self.signature = self._ragged.signature
        self._image: ImageReader | None = None
        self._text: TextReader | None = None
        self._classifier: Classifier | None = None
        self._pre = None if raw else card.preprocess
        self._post = None if raw else card.postprocess
        if (self._pre is not None or self._post is not None) and not card.batched:
            raise ConfigError(
                "preprocess and postprocess need an artefact with a batch dimension; "
                "the card says batched: false",
                key="batched",
            )
        self._set_up_preprocess(folder)
        self._set_up_postprocess(folder)
        self.padding = self._padding(pad_values) if pad_values else None

    def prepare(self, inputs: dict[str, Array]) -> Prepared:
        """One request, of one or many rows.

        Raises: InvalidRequest for what does not fit the public signature or cannot be decoded.
        """
        rows = check_inputs(inputs, self.signature, is_batched=self._is_batched)
        if self._image is not None and isinstance(self._pre, ImagePreprocess):
            pictures = self._image.read(inputs["image"].tolist())
            return Prepared(arrays={self._pre.input: pictures}, rows=rows)
        if self._text is not None:
            tokens = self._text.read(inputs["text"].tolist())
            return Prepared(arrays=tokens, rows=rows, length=tokens[IDS].shape[1])
        if self.padding is not None:
            return Prepared(arrays=inputs, rows=rows, length=self.padding.length(inputs))
        if self._ragged is not None:
            return Prepared(arrays=inputs, rows=rows, length=self._ragged.length(inputs))
        free = 1 if self._is_batched else 0
        shapes = tuple(inputs[spec.name].shape[free:] for spec in self.signature.inputs)
        return Prepared(arrays=inputs, rows=rows, shape_key=shapes)

    @property
    def is_plain(self) -> bool:
        """Whether inputs go to the engine as they come: nothing is decoded, tokenised, padded or
        laid end to end."""
        own = (self._image, self._text, self.padding, self._ragged)
        return all(each is None for each in own)

    def merge(self, batch: Sequence[Prepared]) -> dict[str, Array]:
        """The requests' rows under each other, in order; texts padded to the longest.

        All of `batch` have one `shape_key`. A batch of one is passed on without a copy.
        """
        if self._ragged is not None:
            return self._ragged.merge([each.arrays for each in batch])
        if len(batch) == 1:
            return dict(batch[0].arrays)
        if not self._is_batched:
            raise ValueError("requests to a model without a batch dimension cannot be merged")
        merged: dict[str, Array] = {}
        for name in batch[0].arrays:
            arrays = [prepared.arrays[name] for prepared in batch]
            if self._text is not None:
                merged[name] = pad_together(arrays, self._text.pad_values[name])
            elif self.padding is not None:
                merged[name] = self.padding.merge(name, arrays)
            else:
                merged[name] = np.concatenate(arrays)
        return merged

    def finish(
        self, outputs: dict[str, Array], merged_inputs: dict[str, Array], wanted: set[str]
    ) -> dict[str, Array]:
        """The public outputs among `wanted`, for all rows of the batch. `merged_inputs`: what
        the engine was given."""
        match self._post:
            case ClassifyPostprocess():
                assert self._classifier is not None
                found = self._classifier.finish(outputs, wanted)
            case MeanPoolPostprocess(input=name, normalise=is_normalised):
                mask = merged_inputs[MASK]
                pooled = mean_pool(outputs[name], mask, is_normalised=is_normalised)
                found = {"embedding": pooled}
            case BinaryPostprocess(input=name) as spec:
                label, score = decide(outputs[name], spec)
                found = {"label": label, "score": score}
            case None:
                found = outputs
        return {name: array for name, array in found.items() if name in wanted}

    def _padding(self, values: Mapping[str, float]) -> Padding:
        if self._pre is not None or self._post is not None or not self._is_batched:
            raise ConfigError(
                "batching.padding is for batched models that take their own tensors: texts are "
                "padded by themselves, and postprocess would see the filling",
                key="batching.padding",
            )
        return Padding(values, self.signature)

    def _set_up_preprocess(self, folder: Path) -> None:
        takes = self._artefact.inputs
        match self._pre:
            case ImagePreprocess(input=name) as spec:
                if [tensor.name for tensor in takes] != [name]:
                    said = ", ".join(tensor.name for tensor in takes)
                    raise ConfigError(
                        f"preprocess.input is {name!r}; the artefact takes {said}",
                        key="preprocess.input",
                        value=name,
                        allowed=said,
                    )
                self._image = ImageReader(spec, takes[0])
            case TextPreprocess() as spec:
                self._text = TextReader(spec, folder, self._artefact)
            case None:
                pass

    def _set_up_postprocess(self, folder: Path) -> None:
        if self._post is None:
            return
        source = self._source_of(self._post.input)
        match self._post:
            case ClassifyPostprocess() as spec:
                self._classifier = Classifier(spec, folder, source)
            case MeanPoolPostprocess():
                if self._artefact.input(MASK) is None:
                    raise ConfigError(
                        f"postprocess mean_pool needs an artefact that takes {MASK}",
                        key="postprocess",
                    )
            case BinaryPostprocess():
                pass

    def _source_of(self, name: str) -> TensorSpec:
        source = self._artefact.output(name)
        if source is None:
            said = ", ".join(spec.name for spec in self._artefact.outputs)
            raise ConfigError(
                f"postprocess.input is {name!r}; the artefact gives {said}",
                key="postprocess.input",
                value=name,
                allowed=said,
            )
        return source


def ragged_of(card: ModelCard, config: RaggedConfig) -> Ragged:
    """Raises: ConfigError for a model that cannot take its rows end to end."""
    if card.batched or card.preprocess or card.postprocess or card.decoupled:
        raise ConfigError(
            f"batching.ragged: {card.name} must be a model without processing whose card says "
            "batched: false (its rows lie end to end in `[-1]`)",
            key="batching.ragged",
        )
    return Ragged(config, card.raw_signature())
