"""Which models an experiment or an ensemble is made of, and who waits for whom in a circle."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.config.ensemble import EnsembleConfig, models_of
from cluster.config.experiment import ExperimentConfig
from cluster.errors import ConfigError


def members_of(section: ExperimentConfig | EnsembleConfig) -> set[str]:
    """The models that it calls."""
    return set(section.split if isinstance(section, ExperimentConfig) else section.models)


def circle_of(waiting: Mapping[str, ExperimentConfig | EnsembleConfig]) -> ConfigError:
    """Names one that waits for another of them, so that it can be found in the file."""
    name, section = next(iter(waiting.items()))
    places = [
        (f"ensembles.{name}.steps.{index}", model)
        for index, step in enumerate(section.steps if isinstance(section, EnsembleConfig) else ())
        for model in models_of(step)
        if model in waiting
    ] or [(f"experiments.{name}.split", next(iter(members_of(section) & waiting.keys())))]
    return ConfigError(
        f"{places[0][0]}: {places[0][1]!r} depends on {name!r}: models call each other in a "
        f"circle: {', '.join(sorted(waiting))}",
        key=places[0][0],
        value=places[0][1],
    )
