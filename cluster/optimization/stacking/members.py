"""What an ensemble's members say of labelled data, computed here without any server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cluster.config.ensemble import EnsembleConfig
from cluster.config.ensembles.calls import ModelStep
from cluster.config.ensembles.combining import CombineStep
from cluster.config.model_card import ModelCard
from cluster.config.squadron import SquadronConfig
from cluster.config.store import ModelStore
from cluster.config.variant import VariantConfig
from cluster.engines.engine import EngineSetup
from cluster.engines.fit import check_fit
from cluster.engines.table import make_engine
from cluster.errors import ConfigError
from cluster.processing.pipeline import Pipeline
from cluster.routing.ensembles.combine import combine
from cluster.tensors import Array

Values = dict[str, Array]
Tell = Callable[[str], None]


def stacking_step(name: str, ensemble: EnsembleConfig) -> CombineStep:
    """The one step that is fitted. Raises: ConfigError when there is none, or several."""
    steps = [s for s in ensemble.steps if isinstance(s, CombineStep) and s.combine == "stacking"]
    if len(steps) != 1:
        raise ConfigError(
            f"ensembles.{name}.steps: exactly one step `combine: stacking` can be fitted, "
            f"got {len(steps)}",
            key=f"ensembles.{name}.steps",
        )
    return steps[0]


def member_values(
    name: str, config: SquadronConfig, store: ModelStore, inputs: Values, tell: Tell
) -> Values:
    """The values that the stacking step of ensemble `name` combines, for all rows of `inputs`.

    Raises: ConfigError for a graph that needs more than variants and combiners before that step.
    """
    ensemble = config.ensembles[name]
    wanted = stacking_step(name, ensemble).inputs
    values: Values = dict(inputs)
    while missing := [value for value in wanted if value not in values]:
        before = len(values)
        for index, step in enumerate(ensemble.steps):
            if isinstance(step, ModelStep) and not values.keys() >= set(step.outputs.values()):
                variant = config.variants.get(step.model)
                if variant is None:
                    raise _not_fitted(name, index, f"{step.model} is no variant")
                _add_outputs(step, variant, store, values, tell)
            elif (
                isinstance(step, CombineStep)
                and not step.is_by_model
                and values.keys() >= set(step.inputs)
            ):
                values[step.output] = combine(step, values)
        if len(values) == before:
            text = f"nothing but variants and combiners can give {', '.join(missing)}"
            raise _not_fitted(name, 0, text)
    return {value: values[value] for value in wanted}


def _not_fitted(name: str, index: int, text: str) -> ConfigError:
    key = f"ensembles.{name}.steps.{index}"
    return ConfigError(f"{key}: cannot be computed for fitting: {text}", key=key)


def _add_outputs(
    step: ModelStep, variant: VariantConfig, store: ModelStore, values: Values, tell: Tell
) -> None:
    """The step's values, where what it reads is known already."""
    if variant.card is not None:
        card, folder = variant.card, Path.cwd()
    else:
        source, _, version = (variant.source or "").partition("/")
        card = store.card(source, version)
        folder = store.folder(source, card.version)
    signature = card.public_signature() if variant.processed else card.raw_signature()
    feeds = {spec.name: step.inputs.get(spec.name, spec.name) for spec in signature.inputs}
    if not values.keys() >= set(feeds.values()):
        return
    given = {name: values[value] for name, value in feeds.items()}
    tell(f"{step.model}: {len(next(iter(given.values())))} rows")
    setup = EngineSetup(
        card=card,
        folder=folder,
        device=variant.device,
        threads=variant.threads,
        options=dict(variant.options),
    )
    pipeline = Pipeline(card, folder, raw=not variant.processed)
    found = _run(card, setup, pipeline, given, set(step.outputs), variant)
    for output, value in step.outputs.items():
        values[value] = found[output]


def _run(
    card: ModelCard,
    setup: EngineSetup,
    pipeline: Pipeline,
    given: Values,
    wanted: set[str],
    variant: VariantConfig,
) -> Values:
    """With the processing that serving uses, row by row: what a row gives does not depend on which
    rows it is batched with."""
    engine = make_engine(check_fit(card, variant.engine, variant.device), setup)
    engine.load()
    parts: list[Values] = []
    try:
        for row in range(len(next(iter(given.values())))):
            prepared = pipeline.prepare(
                {name: array[row : row + 1] for name, array in given.items()}
            )
            merged = pipeline.merge([prepared])
            parts.append(pipeline.finish(engine.infer(merged), merged, wanted))
    finally:
        engine.close()
    return {name: np.concatenate([part[name] for part in parts]) for name in wanted}
