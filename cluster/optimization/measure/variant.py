"""A variant that can be run: a folder with a card and an artefact, opened by the engine serving it.

What is measured is therefore what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cluster.config.model_card import MeanPoolPostprocess, ModelCard
from cluster.engines.engine import EngineSetup
from cluster.engines.options import Option
from cluster.engines.table import default_engine, make_engine
from cluster.models import EngineName
from cluster.optimization.intake.files import external_data
from cluster.optimization.measure.as_before import torch_as_before
from cluster.processing.pool import mean_pool
from cluster.tensors import Array

Run = Callable[[dict[str, Array]], dict[str, Array]]
MASK = "attention_mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """`engine` None is the default one of the card's format."""

    card: ModelCard
    folder: Path
    engine: EngineName | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    device: str = "cpu"

    @property
    def num_bytes(self) -> int:
        """Size of the artefact with the files that belong to it (external data, weights of IR)."""
        artefact = self.folder / self.card.artefact
        files = (artefact, *external_data(artefact, self.card.format))
        return sum(path.stat().st_size for path in files if path.is_file())


@contextmanager
def opened(variant: Variant, *, threads: int = 1, device: str = "") -> Iterator[Run]:
    """The variant's `infer`. Torch has the caller's number of threads again afterwards. Raises: as
    the engine's `load` and `infer`."""
    name = variant.engine or default_engine(variant.card.format)
    engine = make_engine(
        name,
        EngineSetup(
            card=variant.card,
            folder=variant.folder,
            device=device or variant.device,
            threads=threads,
            options=dict(variant.options),
        ),
    )
    with torch_as_before(engine=name):
        engine.load()
        try:
            yield engine.infer
        finally:
            engine.close()


def answers(run: Run, items: Sequence[dict[str, Array]], card: ModelCard) -> list[dict[str, Array]]:
    """What the model says to each item. Texts' token vectors are pooled as serving pools them:
    vectors at padding mean nothing."""
    found: list[dict[str, Array]] = []
    pool = card.postprocess
    for item in items:
        outputs = run(item)
        if isinstance(pool, MeanPoolPostprocess) and MASK in item:
            vectors = outputs[pool.input]
            pooled = mean_pool(vectors, item[MASK], is_normalised=pool.normalise)
            outputs = {"embedding": pooled}
        found.append({name: np.asarray(array) for name, array in outputs.items()})
    return found


def ranks_classes(card: ModelCard) -> bool:
    """Whether the last axis of the first output holds scores of classes or of tokens.

    A classifier's card says so; without one, `[batch, classes]` floats with at least two classes
    are taken for scores, and so are `[batch, tokens, vocabulary]` of a thousand and more.
    """
    if isinstance(card.postprocess, MeanPoolPostprocess):
        return False
    first = card.raw_signature().outputs[0]
    if not first.datatype.startswith(("FP", "BF")):
        return False
    width = first.shape[-1] if first.shape else 1
    return (len(first.shape) == 2 and width >= 2) or (len(first.shape) == 3 and width >= 1000)
