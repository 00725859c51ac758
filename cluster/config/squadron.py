"""The whole configuration: what stands under `args:` in a Serve config file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from cluster.config.ensemble import EnsembleConfig, TopKStep, places_of
from cluster.config.experiment import ExperimentConfig
from cluster.config.scaling.autoscaling import AutoscalingBudget
from cluster.config.section import NAME_PATTERN, Mistake, Mistakes, Section
from cluster.config.security.references import WHY, secrets_within
from cluster.config.server import ServerConfig
from cluster.config.storage.location import StoreConfig
from cluster.config.variant import VariantConfig

RESERVED_NAMES = frozenset({"stats"})
"""`GET /v2/models/stats` is a route of its own (protocol section "statistics")."""


class SquadronConfig(Section):
    """Variants, the experiments and ensembles built of them, and the doors in front.

    Every key of `variants`, `experiments` and `ensembles` is a model name that clients can call.
    """

    server: ServerConfig = ServerConfig()
    store: StoreConfig = StoreConfig()
    autoscaling: AutoscalingBudget = AutoscalingBudget()
    variants: dict[str, VariantConfig] = Field(min_length=1)
    experiments: dict[str, ExperimentConfig] = Field(default_factory=dict)
    ensembles: dict[str, EnsembleConfig] = Field(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _holds_no_secret(cls, given: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """After the keys' own checks, which know better what to write instead."""
        read = handler(given)
        mistakes = [
            Mistake(
                key=key,
                text=f"holds what looks like a secret, and {WHY}",
                value="",
                allowed="the environment of the server's processes",
            )
            for key in secrets_within(given)
        ]
        if mistakes:
            raise Mistakes(mistakes)
        return read

    @model_validator(mode="after")
    def _names_hold_together(self) -> Self:
        mistakes = [*self._bad_names(), *self._bad_versions(), *self._bad_arms()]
        mistakes += [*self._bad_members(), *self._bad_budget()]
        if mistakes:
            raise Mistakes(mistakes)
        return self

    def model_names(self) -> tuple[str, ...]:
        return (*self.variants, *self.experiments, *self.ensembles)

    def _bad_names(self) -> Iterator[Mistake]:
        seen: dict[str, str] = {}
        for section in ("variants", "experiments", "ensembles"):
            for name in getattr(self, section):
                key = f"{section}.{name}"
                if not re.fullmatch(NAME_PATTERN, name) or name in RESERVED_NAMES:
                    allowed = "letters, digits, '.', '_', '-'; not 'stats'"
                    yield Mistake(
                        key=key, text="not a model name", value=repr(name), allowed=allowed
                    )
                if name in seen:
                    text = f"this name is already taken in {seen[name]}"
                    yield Mistake(key=key, text=text, value=repr(name))
                seen[name] = section

    def _bad_arms(self) -> Iterator[Mistake]:
        for name, experiment in self.experiments.items():
            for arm in experiment.split:
                if arm not in self.variants and arm not in self.ensembles:
                    yield Mistake(
                        key=f"experiments.{name}.split.{arm}",
                        text="no such variant or ensemble",
                        value=repr(arm),
                        allowed=", ".join((*self.variants, *self.ensembles)),
                    )
            for arm in experiment.mirror.variants if experiment.mirror else ():
                if arm not in self.variants:
                    yield Mistake(
                        key=f"experiments.{name}.mirror.variants",
                        text="no such variant",
                        value=repr(arm),
                        allowed=", ".join(self.variants),
                    )

    def _bad_versions(self) -> Iterator[Mistake]:
        names = [name for name, variant in self.variants.items() if not variant.version_of]
        for name, variant in self.variants.items():
            if variant.version_of and variant.version_of not in names:
                yield Mistake(
                    key=f"variants.{name}.version_of",
                    text="no such variant, or itself a version of another",
                    value=repr(variant.version_of),
                    allowed=", ".join(names),
                )

    def _bad_budget(self) -> Iterator[Mistake]:
        """Caps below what `min_replicas` promise; what is optional may not be there at all."""
        scaled = [
            (variant.autoscaling, variant.resources.memory_bytes or 0)
            for variant in self.variants.values()
            if variant.autoscaling is not None and not variant.optional
        ]
        least = {
            "max_cost": sum(each.min_replicas * each.cost for each, _ in scaled),
            "max_memory_bytes": sum(each.min_replicas * num for each, num in scaled),
        }
        for key, needed in least.items():
            cap = getattr(self.autoscaling, key)
            if cap is not None and cap < needed:
                yield Mistake(
                    key=f"autoscaling.{key}",
                    text="less than the min_replicas of all variants take",
                    value=repr(cap),
                    allowed=f"at least {needed:g}",
                )

    def _bad_members(self) -> Iterator[Mistake]:
        callable_names = {*self.variants, *self.experiments, *self.ensembles}
        for name, ensemble in self.ensembles.items():
            for index, step in enumerate(ensemble.steps):
                where = f"ensembles.{name}.steps.{index}"
                for key, model in places_of(step):
                    if model not in callable_names - {name}:
                        yield Mistake(
                            key=f"{where}.{key}",
                            text="no such model",
                            value=repr(model),
                            allowed=", ".join(sorted(callable_names - {name})),
                        )
                if isinstance(step, TopKStep) and step.labels_of not in self.variants:
                    yield Mistake(
                        key=f"{where}.labels_of",
                        text="no such variant",
                        value=repr(step.labels_of),
                        allowed=", ".join(self.variants),
                    )
