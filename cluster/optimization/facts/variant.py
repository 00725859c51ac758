"""What the planner must know of a configured variant, from its artefact."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from cluster.config.model_card import ModelCard
from cluster.config.planning.demand import PlannedModelConfig
from cluster.config.store import ModelStore
from cluster.config.variant import VariantConfig
from cluster.engines.warm_up import FREE_SIZE, zeros
from cluster.errors import ConfigError, SquadronError
from cluster.optimization.facts.onnx_graph import estimate_onnx
from cluster.optimization.measure.variant import Variant, opened
from cluster.placement.estimates.described import described, no_facts
from cluster.placement.estimates.transformers import Call, estimate
from cluster.placement.search.facts import ModelFacts

BITS = {"float32": 32, "float16": 16, "bfloat16": 16}
REPEATS = 5


def facts_of(
    name: str, variant: VariantConfig, planned: PlannedModelConfig, store: ModelStore
) -> ModelFacts:
    """As the plan file describes it, else estimated from the artefact.

    Raises: ConfigError when neither says anything.
    """
    told = described(name, planned)
    if told is not None:
        return told
    if variant.source is None:
        raise no_facts(name, "its card is inline, so there is no artefact to estimate it from")
    source, _, version = variant.source.partition("/")
    return facts_of_artefact(
        name, store.card(source, version), store.folder(source, version), planned
    )


def is_batched(variant: VariantConfig, store: ModelStore) -> bool:
    """Whether rows of several requests are computed together."""
    if variant.card is not None:
        return variant.card.batched
    source, _, version = (variant.source or "").partition("/")
    try:
        return store.card(source, version).batched
    except ConfigError:
        # A plan file may describe a model that is not in the store.
        return True


def facts_of_artefact(
    name: str, card: ModelCard, folder: Path, planned: PlannedModelConfig
) -> ModelFacts:
    """Estimated. Raises: ConfigError for a format that nothing can be estimated of."""
    if card.format == "onnx":
        return estimate_onnx(name, folder / card.artefact, tokens=planned.tokens)
    if card.format in ("huggingface", "causal_lm"):
        return _of_directory(name, folder / card.artefact, planned)
    raise no_facts(name, f"there is no estimate for format {card.format}")


def measured(facts: ModelFacts, name: str, variant: VariantConfig, store: ModelStore) -> ModelFacts:
    """The profile pass: one request of zeros alone, on this machine's CPU, the median of some.

    Raises: ConfigError when the variant cannot be run here.
    """
    source, _, version = (variant.source or "").partition("/")
    card, folder = store.card(source, version), store.folder(source, version)
    try:
        seconds = _time(Variant(card=card, folder=folder, engine=variant.engine), card)
    except SquadronError as error:
        raise no_facts(name, f"it could not be measured: {error.message}") from None
    note = f"time measured on this CPU with free sizes of {FREE_SIZE}; {facts.note}"
    return replace(facts, measured_s=(("cpu", seconds),), note=note)


def _time(variant: Variant, card: ModelCard) -> float:
    inputs = zeros(card.raw_signature(), is_batched=card.batched, batch_size=1)
    with opened(variant) as run:
        run(inputs)
        took: list[float] = []
        for _ in range(REPEATS):
            began_s = time.perf_counter()
            run(inputs)
            took.append(time.perf_counter() - began_s)
    return median(took)


def _of_directory(name: str, folder: Path, planned: PlannedModelConfig) -> ModelFacts:
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise no_facts(name, f"{file} cannot be read: {error}") from None
    kept = str(config.get("dtype") or config.get("torch_dtype"))
    call = Call(tokens=planned.tokens, output_tokens=planned.output_tokens)
    return estimate(name, config, call, bits=planned.bits or BITS.get(kept, 32))
