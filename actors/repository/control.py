"""The controller's hand for models that can be loaded and unloaded while the server runs.

Every model is a Serve application of its own, named after exactly what it serves. A changed model
is a new application: the doors' table turns to it when it is ready, and the old one goes when no
door has a request under way to it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from actors.repository import apps, state
from actors.repository.candidate import Candidate, candidate_of
from actors.repository.names import app_prefix
from actors.variant_facts import Origin
from cluster.config.squadron import SquadronConfig
from cluster.config.store import ModelStore
from cluster.control.reconcile import DeploymentSeen
from cluster.control.repository import (
    Desired,
    Setting,
    Settings,
    Wanted,
    app_state,
    desire,
    plan_apps,
    section_digest,
)
from cluster.errors import ConfigError
from cluster.models import ModelState
from cluster.optimization.triton.upload import remove_uploads
from cluster.routing.table import Route, RoutingTable, VariantRoute, build_table

logger = logging.getLogger("squadron.repository")

REFUSED_S = 30.0
"""After which what could not be placed is tried again: other models may have gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositorySetup:
    """What the doors' configuration says."""

    config: SquadronConfig
    store: ModelStore


@dataclass(slots=True, kw_only=True, eq=False)
class Trial:
    """A candidate that takes its model's place when it is ready; `done` says when, or why not."""

    candidate: Candidate
    setting: Setting
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refused:
    """An application that Serve is not asked for: why, and until when on the monotonic clock."""

    reason: str
    again_s: float


class RepositoryControl:
    """Lives on the controller's loop. `app`: the application whose models these are; `loading`:
    the names that a caller is loading now."""

    def __init__(self, app: str, setup: RepositorySetup, keeper: state.RepositoryKeeper) -> None:
        self._app = app
        self._prefix = app_prefix(app)
        self.setup = setup
        self._keeper = keeper
        kept = keeper.read()
        self.settings: Settings = kept.settings
        self._kept = kept
        self._told: Mapping[str, Setting] = kept.serving
        self._serving: dict[str, Candidate] = {}
        self._trials: dict[str, Trial] = {}
        self._cache: dict[tuple[str, str], Candidate | None] = {}
        self._asked: set[str] = set()
        self._refused: dict[str, _Refused] = {}
        self._running: Mapping[str, int] = {}
        self.loading: set[str] = set()

    @property
    def config(self) -> SquadronConfig:
        return self.setup.config

    def desired(self) -> Desired:
        return desire(self.config, self.settings)

    def serving(self, name: str) -> Wanted | None:
        found = self._serving.get(name)
        return None if found is None else found.wanted

    def candidate(self, name: str, wanted: Wanted) -> Candidate:
        """Raises: ConfigError when it cannot be served here."""
        return candidate_of(name, wanted, store=self.setup.store, prefix=self._prefix)

    def try_out(self, candidate: Candidate, setting: Setting) -> asyncio.Future[None]:
        """Serve a model like this as soon as it is ready; the future says when, or why it cannot.

        Raises: ConfigError when an ensemble would no longer fit together.
        """
        if isinstance(candidate.origin, ConfigError):
            raise candidate.origin
        desired = self.desired()
        variants = {**desired.variants, candidate.name: candidate.wanted}
        known = {**self._known(desired), candidate.name: candidate}
        self._table(known, variants, {}, frozenset())
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        trial = Trial(candidate=candidate, setting=setting, done=done)
        self._trials[candidate.name] = trial
        return done

    def give_up_all(self, reason: str) -> None:
        for name in list(self._trials):
            self.give_up(name, reason)

    def give_up(self, name: str, reason: str) -> None:
        """End a trial that nobody wants any more."""
        trial = self._trials.pop(name, None)
        if trial is not None and not trial.done.done():
            trial.done.set_exception(ConfigError(reason))

    def set(self, name: str, setting: Setting) -> None:
        """Keep what was asked for, so that a restarted controller knows it."""
        setting = setting.model_copy(update={"section": section_digest(self.config, name)})
        self.settings = self.settings.in_force(self.config).with_setting(name, setting)
        self._keep()

    def step(self, seen: apps.Seen) -> RoutingTable:
        """The table for what runs now (version 0); trials that are over are settled."""
        states = {app: _state_of(deployments) for app, deployments in seen.items()}
        # Serve never heard of them.
        states |= {app: ("UNAVAILABLE", each.reason) for app, each in self._refused.items()}
        self._running = {
            app: sum(each.num_running for each in deployments.values())
            for app, deployments in seen.items()
        }
        for trial in list(self._trials.values()):
            self._settle(trial, states)
        desired = self.desired()
        known = self._known(desired)
        for name, candidate in known.items():
            if name in desired.unloaded:
                self._serving.pop(name, None)
            elif name not in self._serving:
                self._serving[name] = self._was_serving(name, candidate, states)
            elif (
                states.get(candidate.app, ("LOADING", ""))[0] == "READY"
                or self._serving[name].app not in states
            ):
                self._serving[name] = candidate
        for name in self._serving.keys() - known.keys():
            del self._serving[name]
        served = {name: self._serving.get(name, candidate) for name, candidate in known.items()}
        variants = {name: each.wanted for name, each in served.items()}
        self._keep()
        return self._table(served, variants, states, desired.unloaded)

    def act(self, seen: apps.Seen, *, is_at_rest: bool) -> list[Callable[[], None]]:
        """What is to be asked of Serve now; each may take seconds, so call them off the loop."""
        desired = self.desired()
        known = self._known(desired)
        loaded = {
            name: each
            for name, each in known.items()
            if name not in desired.unloaded and isinstance(each.origin, Origin)
        }
        trying = {f"{name}?": trial.candidate for name, trial in self._trials.items()}
        wanted = {**loaded, **trying}
        by_app = {each.app: each for each in wanted.values()}
        self._forget_refused(by_app)
        self._asked &= by_app.keys() - seen.keys()
        calls: list[Callable[[], None]] = []
        for action in plan_apps(
            {name: each.app for name, each in wanted.items()},
            {name: each.app for name, each in self._serving.items()},
            {*seen, *self._asked},
            prefix=self._prefix,
            is_at_rest=is_at_rest,
        ):
            logger.info("%s: %s", action.app, action.reason)
            if action.is_deploy:
                self._asked.add(action.app)
                calls.append(self._deploying(by_app[action.app]))
            else:
                calls.append(_deleting(action.app))
                calls.extend(self._pruning(action.name, wanted.values()))
        return calls

    def _deploying(self, candidate: Candidate) -> Callable[[], None]:
        """What Serve is not asked for, as it cannot be placed, is told of by its state: whoever's
        pass this is has nothing to do with it."""
        origin = candidate.origin
        assert isinstance(origin, Origin)  # only those are planned

        def call() -> None:
            variant, server = candidate.wanted.variant, self.config.server
            try:
                apps.deploy(
                    candidate.app, candidate.deployment, candidate.name, variant, origin, server
                )
            except ConfigError as error:
                logger.warning("%s cannot be served: %s", candidate.name, error.message)
                self._refused[candidate.app] = _Refused(
                    reason=error.message, again_s=time.monotonic() + REFUSED_S
                )

        return call

    def _forget_refused(self, wanted: Iterable[str]) -> None:
        """There may be room now; and what nobody wants any more may be asked for anew."""
        now_s = time.monotonic()
        for app in list(self._refused):
            if app not in wanted or self._refused[app].again_s <= now_s:
                del self._refused[app]
                self._asked.discard(app)

    def _pruning(self, name: str, wanted: Iterable[Candidate]) -> list[Callable[[], None]]:
        """Take away the files sent for a model that nothing serves any more."""
        if name in self.loading:
            return []  # what was just sent is not wanted yet
        known = [*wanted, *self._serving.values(), *self._known(self.desired()).values()]
        kept = {each.wanted.store for each in known}
        return [partial(remove_uploads, self.setup.store.root, name, kept)]

    def _known(self, desired: Desired) -> dict[str, Candidate]:
        """A name whose source has gone from the store is left out; the log says so."""
        cache: dict[tuple[str, str], Candidate | None] = {}
        for name, wanted in desired.variants.items():
            key = _key(name, wanted)
            if key in self._cache:
                cache[key] = self._cache[key]
                continue
            try:
                cache[key] = self.candidate(name, wanted)
            except ConfigError as error:
                logger.warning("%s is left out: %s", name, error.message)
                cache[key] = None
        self._cache = cache
        return {key[0]: each for key, each in cache.items() if each is not None}

    def _was_serving(
        self, name: str, candidate: Candidate, states: Mapping[str, tuple[ModelState, str]]
    ) -> Candidate:
        """After a restart in the middle of a change: the one that the doors use, if it runs."""
        told = self._told.get(name)
        if told is None or told.variant is None or _is_ready(candidate, states):
            return candidate
        try:
            old = self.candidate(name, Wanted(variant=told.variant, store=told.store))
        except ConfigError:
            return candidate
        return old if _is_ready(old, states) else candidate

    def _settle(self, trial: Trial, states: Mapping[str, tuple[ModelState, str]]) -> None:
        name = trial.candidate.name
        found, reason = states.get(trial.candidate.app, ("LOADING", ""))
        if found == "LOADING":
            return
        del self._trials[name]
        if found == "READY":
            self.set(name, trial.setting)
            self._serving[name] = trial.candidate
            # Made anew for this trial: `source: name` may mean a newer version than before.
            self._cache[_key(name, trial.candidate.wanted)] = trial.candidate
            if not trial.done.done():
                trial.done.set_result(None)
        elif not trial.done.done():
            trial.done.set_exception(ConfigError(reason))

    def _table(
        self,
        served: Mapping[str, Candidate],
        variants: Mapping[str, Wanted],
        states: Mapping[str, tuple[ModelState, str]],
        unloaded: frozenset[str],
    ) -> RoutingTable:
        section = {name: wanted.variant for name, wanted in variants.items() if name in served}
        config = self.config.model_copy(update={"variants": section})
        table = build_table(config, {name: each.facts for name, each in served.items()})
        routes: dict[str, Route] = {}
        for name, route in table.routes.items():
            if isinstance(route, VariantRoute):
                route = _routed(route, served[name], states)
                if route.is_autoscaled:
                    route = replace(route, num_replicas=self._running.get(route.app, 0))
            routes[name] = route
        return replace(table, routes=routes).without(sorted(unloaded & routes.keys()))

    def _keep(self) -> None:
        serving = {
            name: Setting(is_loaded=True, variant=each.wanted.variant, store=each.wanted.store)
            for name, each in self._serving.items()
        }
        kept = state.Kept(settings=self.settings, serving=serving)
        if kept != self._kept:
            self._keeper.write(kept)
            self._kept = kept


def _key(name: str, wanted: Wanted) -> tuple[str, str]:
    return name, f"{wanted.variant.model_dump_json()}\0{wanted.store}"


def _routed(
    route: VariantRoute, candidate: Candidate, states: Mapping[str, tuple[ModelState, str]]
) -> VariantRoute:
    route = replace(route, app=candidate.app, deployment=candidate.deployment)
    if route.facts.unavailable:
        return route
    found, reason = states.get(candidate.app, app_state(None))
    return replace(route, state=found, reason=reason)


def _is_ready(candidate: Candidate, states: Mapping[str, tuple[ModelState, str]]) -> bool:
    return states.get(candidate.app, ("LOADING", ""))[0] == "READY"


def _state_of(deployments: Mapping[str, DeploymentSeen]) -> tuple[ModelState, str]:
    return app_state(next(iter(deployments.values()), None))


def _deleting(app: str) -> Callable[[], None]:
    return lambda: apps.delete(app)
