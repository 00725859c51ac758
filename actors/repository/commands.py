"""Load and unload, as the protocol's repository extension has them."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayTaskError

from actors.repository.control import RepositoryControl
from actors.variant_facts import Origin
from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.config.section import NAME_PATTERN
from cluster.config.store import ModelStore
from cluster.config.variant import VariantConfig
from cluster.control.repository import Setting, Wanted, members_of, older_versions
from cluster.errors import ConfigError, InvalidRequest, ModelNotFound, SquadronError
from cluster.optimization.triton.repository import chosen_versions
from cluster.optimization.triton.upload import Uploaded, store_upload
from cluster.protocols.triton.findings import Findings
from cluster.protocols.triton.model_config import parse_json
from cluster.protocols.triton.override import lay_over
from cluster.protocols.triton.settings import has_settings
from cluster.protocols.triton.uploads import UploadedFile, uploaded_files

Step = Callable[[], Awaitable[None]]
"""One control pass."""

logger = logging.getLogger("squadron.repository")

LOOK_AGAIN_S = 0.1
NOT_POLLED = "failed to poll from model repository"


class Commands:
    """One command a model at a time."""

    def __init__(self, control: RepositoryControl, step: Step) -> None:
        self._control = control
        self._step = step
        self._locks: dict[str, asyncio.Lock] = {}

    async def load(self, model: str, config: str, files: Mapping[str, bytes]) -> None:
        """Returns when the model serves as asked. Raises: InvalidRequest or SquadronError whose
        text says "failed to load"; what served before goes on serving then."""
        async with self._locks.setdefault(model, asyncio.Lock()):
            self._control.loading.add(model)
            try:
                if members_of(self._control.config, model):
                    await self._load_graph(model, bool(config or files))
                else:
                    await self._load_variant(model, config, files)
                    for version in older_versions(self._control.config, model):
                        await self._load_variant(version, "", {})
            except (ConfigError, InvalidRequest) as error:
                raise InvalidRequest(f"failed to load '{model}', {error.message}") from None
            except SquadronError as error:
                raise type(error)(f"failed to load '{model}', {error.message}") from None
            finally:
                self._control.loading.discard(model)
        await self._step()

    async def unload(self, model: str, *, with_dependents: bool) -> None:
        """From now on nobody can call it; requests under way are finished. Raises: ModelNotFound.

        `with_dependents`: the members of an ensemble too, but those that another one needs.
        """
        control = self._control
        desired = control.desired()
        graphs = {*control.config.experiments, *control.config.ensembles}
        if model not in desired.variants and model not in graphs:
            raise ModelNotFound(f"failed to unload '{model}', no such model")
        names = [model]
        if with_dependents:
            others = graphs - desired.unloaded - {model}
            shared = {each for other in others for each in members_of(control.config, other)}
            members = members_of(control.config, model)
            names += [each for each in members if each not in shared]
        names += [each for name in names for each in older_versions(control.config, name)]
        for name in names:
            control.give_up(name, "it was unloaded meanwhile")
            wanted = desired.variants.get(name)
            own = control.config.variants.get(name)
            is_own = wanted is None or (wanted.variant == own and not wanted.store)
            control.set(
                name,
                Setting(is_loaded=False)
                if is_own or wanted is None
                else Setting(is_loaded=False, variant=wanted.variant, store=wanted.store),
            )
        await self._step()

    async def _load_graph(self, model: str, is_changed: bool) -> None:
        if is_changed:
            raise InvalidRequest("an ensemble or experiment is changed in the configuration only")
        unloaded = self._control.desired().unloaded
        for member in members_of(self._control.config, model):
            if member in unloaded:
                await self.load(member, "", {})
        self._control.set(model, Setting(is_loaded=True))

    async def _load_variant(self, model: str, config: str, files: Mapping[str, bytes]) -> None:
        sent = uploaded_files(files)
        if not re.fullmatch(NAME_PATTERN, model):
            raise SquadronError(NOT_POLLED)
        if sent:
            uploaded = await self._upload(model, config, sent)
            _tell(model, uploaded.lost)
            wanted = Wanted(variant=uploaded.variant, store=uploaded.store)
        else:
            wanted = await asyncio.to_thread(self._wanted, model, config)
        if not self._is_own(model):
            scaling = self._control.config.autoscaling.loaded
            wanted = replace(wanted, variant=scaled_when_loaded(wanted.variant, scaling))
        own = Wanted(variant=self._control.config.variants[model]) if self._is_own(model) else None
        setting = (
            Setting(is_loaded=True)
            if wanted == own
            else Setting(is_loaded=True, variant=wanted.variant, store=wanted.store)
        )
        candidate = await asyncio.to_thread(self._control.candidate, model, wanted)
        done = self._control.try_out(candidate, setting)
        while not done.done():
            await self._step()
            await asyncio.wait({done}, timeout=LOOK_AGAIN_S)
        done.result()

    def _is_own(self, model: str) -> bool:
        return model in self._control.config.variants

    def _wanted(self, model: str, config: str) -> Wanted:
        """The configured variant or that of the store, with the caller's configuration over it.

        Raises: InvalidRequest, ConfigError; SquadronError for a model that nobody knows.
        """
        store = self._control.setup.store
        variant = self._control.config.variants.get(model)
        if variant is None:
            if not store.versions(model):
                raise SquadronError(NOT_POLLED)
            variant = VariantConfig(source=model, colocate="never")
        if not config:
            return Wanted(variant=variant)
        message = parse_json(config)
        _check_name(message, model)
        files = ""
        if has_settings(message):
            # One setting after the other: each over what is served by now.
            current = self._control.desired().variants.get(model)
            if current is not None:
                variant, files = current.variant, current.store
        variant = _with_version(variant, message, store)
        origin = self._control.candidate(model, Wanted(variant=variant, store=files)).origin
        if not isinstance(origin, Origin):
            raise origin
        laid = lay_over(variant, message, is_batched=origin.card.batched)
        _tell(model, laid.lost)
        return Wanted(variant=laid.variant, store=files)

    async def _upload(self, model: str, config: str, files: tuple[UploadedFile, ...]) -> Uploaded:
        """In a process of its own: a file made to crash the parser crashes only that."""
        try:
            _check_name(parse_json(config or "{}"), model)
            work: Any = ray.remote(num_cpus=0, max_retries=0)(store_upload)
            found: Uploaded = await work.remote(
                model, config, files, self._control.setup.store.root
            )
        except RayTaskError as error:
            if isinstance(error.cause, SquadronError):
                raise error.cause from None
            raise InvalidRequest("the files could not be read") from None
        except ray.exceptions.RayError:
            raise InvalidRequest("the files could not be read") from None
        return found


def scaled_when_loaded(variant: VariantConfig, scaling: AutoscalingConfig | None) -> VariantConfig:
    """A model that nobody configured, under `autoscaling.loaded`. It begins with a replica, which
    shows that it can be loaded."""
    if scaling is None or variant.autoscaling is not None or variant.sequences is not None:
        return variant
    first = max(1, scaling.first_replicas)
    scaling = scaling.model_copy(update={"initial_replicas": first})
    return variant.model_copy(update={"autoscaling": scaling})


def _tell(model: str, lost: tuple[str, ...]) -> None:
    for each in lost:
        logger.warning("%s was loaded without %s", model, each)


def _check_name(message: Any, model: str) -> None:
    if message.name and message.name != model:
        raise InvalidRequest(f"the configuration is that of '{message.name}'")


def _with_version(variant: VariantConfig, message: Any, store: ModelStore) -> VariantConfig:
    """The version that a `version_policy` chooses among those in the store."""
    if not message.HasField("version_policy") or variant.source is None:
        return variant
    name = variant.source.partition("/")[0]
    there = [int(card.version) for card in store.versions(name)]
    chosen = chosen_versions(message.version_policy, there, Findings(model=name))
    if not chosen:
        raise InvalidRequest(
            "at least one version must be available under the version policy of model "
            f"'{name}'; there: {', '.join(map(str, there))}"
        )
    return variant.model_copy(update={"source": f"{name}/{chosen[-1]}"})
