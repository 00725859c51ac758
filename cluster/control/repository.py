"""Which models are to be served: the configuration, and what was loaded and unloaded since.

A setting made at run time lives until the model's section of the configuration changes: the
section's digest is kept with it. Settings are plain values, kept as JSON by whoever holds them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pydantic import Field

from cluster.config.section import Section
from cluster.config.squadron import SquadronConfig
from cluster.config.variant import VariantConfig
from cluster.control.reconcile import DeploymentSeen
from cluster.models import ModelState


class Setting(Section):
    """What was last asked for one name.

    `variant` replaces that of the configuration (None: its own); `store` is the folder its source
    is in (empty: the configured store); `section`: the digest of the configuration's section then.
    """

    is_loaded: bool
    variant: VariantConfig | None = None
    store: str = ""
    section: str = ""


class Settings(Section):
    """Every name that was loaded or unloaded at run time."""

    by_name: dict[str, Setting] = Field(default_factory=dict)

    def with_setting(self, name: str, setting: Setting) -> Settings:
        return Settings(by_name={**self.by_name, name: setting})

    def in_force(self, config: SquadronConfig) -> Settings:
        """Without those whose section of the configuration has changed since."""
        return Settings(
            by_name={
                name: setting
                for name, setting in self.by_name.items()
                if setting.section == section_digest(config, name)
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One variant to serve: how, and the store its source is in (empty: the configured one)."""

    variant: VariantConfig
    store: str = ""

    def app(self, prefix: str, name: str, artefact: str) -> str:
        """The application that serves exactly this; another content has another name."""
        content = f"{self.variant.model_dump_json()}\0{self.store}\0{artefact}"
        return f"{prefix}{name}@{hashlib.sha256(content.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """`variants`: everything known, also what is unloaded."""

    variants: Mapping[str, Wanted]
    unloaded: frozenset[str]


def desire(config: SquadronConfig, settings: Settings) -> Desired:
    """What the configuration and the settings that are in force ask for together."""
    settings = settings.in_force(config)
    variants = {name: Wanted(variant=variant) for name, variant in config.variants.items()}
    for name, setting in settings.by_name.items():
        if setting.variant is not None:
            variants[name] = Wanted(variant=setting.variant, store=setting.store)
    known = {*variants, *config.experiments, *config.ensembles}
    return Desired(
        variants=variants,
        unloaded=frozenset(
            name
            for name, setting in settings.by_name.items()
            if not setting.is_loaded and name in known
        ),
    )


def section_digest(config: SquadronConfig, name: str) -> str:
    """Of the section that names it; empty for a name that the configuration does not have."""
    for sections in (config.variants, config.experiments, config.ensembles):
        section = sections.get(name)
        if section is not None:
            return hashlib.sha256(section.model_dump_json().encode()).hexdigest()[:16]
    return ""


def older_versions(config: SquadronConfig, name: str) -> tuple[str, ...]:
    """The variants that are versions of this one: loaded and unloaded with it."""
    return tuple(each for each, v in config.variants.items() if v.version_of == name)


def members_of(config: SquadronConfig, name: str) -> tuple[str, ...]:
    """The models that an ensemble or experiment is made of, through all levels; else none."""
    if name in config.experiments:
        direct = tuple(config.experiments[name].split)
    elif name in config.ensembles:
        direct = config.ensembles[name].models
    else:
        return ()
    below = [member for model in direct for member in members_of(config, model)]
    return tuple(dict.fromkeys((*direct, *below)))


def app_state(seen: DeploymentSeen | None) -> tuple[ModelState, str]:
    """A model's state from the one deployment of its application."""
    if seen is None:
        return "LOADING", "its application is being deployed"
    if seen.num_running > 0:
        return "READY", ""
    if seen.status == "DEPLOY_FAILED":
        return "UNAVAILABLE", seen.message or seen.status
    if seen.status in ("HEALTHY", "DOWNSCALING"):
        return "READY", "scaled to zero: the first request is held until a replica runs"
    return "LOADING", "its replicas are starting"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppAction:
    """Deploy or delete one application, and why."""

    app: str
    name: str
    is_deploy: bool
    reason: str


def plan_apps(
    wanted: Mapping[str, str],
    serving: Mapping[str, str],
    running: Collection[str],
    *,
    prefix: str,
    is_at_rest: bool,
) -> tuple[AppAction, ...]:
    """What to deploy and to delete.

    `wanted`, `serving`: model -> application; a model is served by its old one until the new one is
    ready. `is_at_rest`: every door has the present table and no request under way to what is in it
    no longer; before that nothing is deleted.
    """
    deploy = [
        AppAction(app=app, name=name, is_deploy=True, reason=f"{name} is to be served")
        for name, app in wanted.items()
        if app not in running
    ]
    if not is_at_rest:
        return tuple(deploy)
    needed = {*wanted.values(), *serving.values()}
    delete = [
        AppAction(
            app=app,
            name=app.removeprefix(prefix).rpartition("@")[0],
            is_deploy=False,
            reason="nothing is routed to it",
        )
        for app in sorted(running)
        if app.startswith(prefix) and app not in needed
    ]
    return (*deploy, *delete)
