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
from cluster.engines.sharded.layers import layered_model
from cluster.engines.sharded.options import dtype_option
from cluster.engines.warm_up import FREE_SIZE, zeros
from cluster.errors import ConfigError, SquadronError
from cluster.optimization.facts.onnx_graph import estimate_onnx
from cluster.optimization.measure.variant import Variant, opened
from cluster.placement.estimates.described import as_configured, described, no_facts
from cluster.placement.estimates.layers import of_layers
from cluster.placement.estimates.transformers import Call, estimate
from cluster.placement.search.facts import ModelFacts

BITS = {"float32": 32, "float16": 16, "bfloat16": 16}
REPEATS = 5


def facts_of(
    name: str, variant: VariantConfig, planned: PlannedModelConfig, store: ModelStore
) -> tuple[PlannedModelConfig, ModelFacts]:
    """What is asked of a configured variant, as it will be served, and what is known of it.

    Raises: ConfigError when neither the plan file nor an artefact says anything.
    """
    card, folder, missing = variant.card, None, "its card is inline: there is no artefact"
    if variant.source is not None:
        source, _, version = variant.source.partition("/")
        try:
            card, folder = store.card(source, version), store.folder(source, version)
        except ConfigError as error:
            # A plan file may describe a model that is not in the store.
            missing = error.message
    planned = as_served(planned, variant, card)
    told = described(name, planned)
    if told is not None:
        return planned, told
    if card is None or folder is None:
        raise no_facts(name, missing)
    return planned, facts_of_artefact(name, card, folder, planned)


def as_served(
    planned: PlannedModelConfig, variant: VariantConfig, card: ModelCard | None
) -> PlannedModelConfig:
    """The demand with what the variant's other settings say: how many are computed at once, and in
    which data type. The placement that is planned on the command line and the one that a server
    chooses begin here."""
    asked = as_configured(planned, variant, is_batched=card is None or card.batched)
    bits = planned.bits or _bits(variant, card)
    return asked.model_copy(update={"bits": bits}) if bits else asked


def facts_of_artefact(
    name: str, card: ModelCard, folder: Path, planned: PlannedModelConfig
) -> ModelFacts:
    """As the demand describes the model, else estimated.

    Raises: ConfigError for a format that nothing can be estimated of.
    """
    told = described(name, planned)
    if told is not None:
        return told
    if card.format == "onnx":
        return estimate_onnx(name, folder / card.artefact, tokens=planned.tokens)
    if card.format in ("huggingface", "causal_lm"):
        return _of_directory(name, folder / card.artefact, planned)
    if card.format == "torch_export":
        return of_layers(name, layered_model(card, folder))
    raise no_facts(name, f"there is no estimate for format {card.format}")


def _bits(variant: VariantConfig, card: ModelCard | None) -> int:
    """Of a weight as it is computed with; 0 where that is what the file has."""
    if card is not None and card.format == "huggingface":
        return BITS[dtype_option(dict(variant.options))]
    return BITS.get(variant.llm.dtype, 0) if variant.llm is not None else 0


def measured(facts: ModelFacts, name: str, variant: VariantConfig, store: ModelStore) -> ModelFacts:
    """The profile pass: one request of zeros alone, on this machine's CPU, the median of some.

    Raises: ConfigError when the variant cannot be run here.
    """
    source, _, version = (variant.source or "").partition("/")
    card, folder = store.card(source, version), store.folder(source, version)
    try:
        served = Variant(card=card, folder=folder, engine=variant.engine, options=variant.options)
        seconds = _time(served, card)
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
