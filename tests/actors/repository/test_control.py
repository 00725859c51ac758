"""A placement that cannot be is found when Serve is about to be asked: it ends what wanted it, and
nothing else."""

from __future__ import annotations

import asyncio

import pytest

from actors.repository import control as repository
from actors.repository.control import RepositoryControl, RepositorySetup
from actors.repository.state import RepositoryKeeper
from cluster.config.squadron import SquadronConfig
from cluster.config.store import ModelStore, default_root
from cluster.config.variant import VariantConfig
from cluster.control.repository import Setting, Wanted
from cluster.errors import ConfigError
from cluster.routing.table import VariantRoute
from tests.actors.experiments.test_control import Memory, control

pytestmark = pytest.mark.models

NAME = "smollm2-135m"
LACKING: dict[str, object] = {"shard_map": {"layers.0-9": "cpu", "layers.10-35": "cpu"}}


def made(placement: dict[str, object] | None = None) -> RepositoryControl:
    section: dict[str, object] = {"source": NAME, "device": "cpu"}
    if placement is not None:
        section["placement"] = placement
    config = SquadronConfig.model_validate({"variants": {NAME: section}})
    setup = RepositorySetup(config=config, store=ModelStore(default_root().resolve()))
    return RepositoryControl("app", setup, RepositoryKeeper(control(Memory()), lambda: None))


def route(made: RepositoryControl) -> VariantRoute:
    found = made.step({}).routes[NAME]
    assert isinstance(found, VariantRoute)
    return found


def act(made: RepositoryControl) -> int:
    """How many things Serve was to be asked for."""
    calls = made.act({}, is_at_rest=True)
    for call in calls:
        call()
    return len(calls)


async def test_a_trial_ends_with_the_reason_whoever_asked_serve_for_it() -> None:
    control = made(LACKING)
    variant = VariantConfig.model_validate(
        {"source": NAME, "device": "cpu", "placement": {"strategy": "tensor", "shards": 2}}
    )
    candidate = control.candidate(NAME, Wanted(variant=variant))

    for _ in range(2):
        done = control.try_out(candidate, Setting(is_loaded=True, variant=variant))
        control.step({})
        assert act(control) > 0
        assert not done.done()
        control.step({})
        with pytest.raises(ConfigError, match="tensor degree 2 does not divide the 9 attention"):
            await asyncio.wait_for(done, 1)
        act(control)


def test_a_configured_model_says_why_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    control = made(LACKING)
    assert route(control).state == "LOADING"
    assert act(control) == 1

    found = route(control)

    assert (found.state, "there is no layer 30" in found.reason) == ("UNAVAILABLE", True)
    assert act(control) == 0
    monkeypatch.setattr(repository, "REFUSED_S", 0.0)
    later = made(LACKING)
    later.step({})
    assert [act(later), act(later)] == [1, 1]
