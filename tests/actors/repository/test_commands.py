from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.repository.commands import Commands, scaled_when_loaded
from actors.repository.control import RepositoryControl, RepositorySetup
from actors.repository.state import RepositoryKeeper
from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.config.squadron import SquadronConfig
from cluster.config.variant import VariantConfig
from cluster.control.reconcile import DeploymentSeen
from tests.actors.experiments.test_control import Memory, control
from tests.actors.jobs.places import make_store

LOADED = AutoscalingConfig(min_replicas=0, max_replicas=4)
PLAIN = VariantConfig(source="m")


def test_a_model_loaded_at_run_time_is_scaled_as_the_section_says_from_its_first_replica() -> None:
    found = scaled_when_loaded(PLAIN, LOADED).autoscaling

    assert found is not None
    assert (found.min_replicas, found.first_replicas, found.max_replicas) == (0, 1, 4)


@pytest.mark.parametrize(
    ("variant", "scaling"),
    [
        (PLAIN, None),
        (VariantConfig(source="m", autoscaling=AutoscalingConfig(max_replicas=2)), LOADED),
        (VariantConfig.model_validate({"source": "m", "sequences": {}}), LOADED),
    ],
)
def test_what_says_it_itself_or_cannot_be_scaled_stays_as_it_is(
    variant: VariantConfig, scaling: AutoscalingConfig | None
) -> None:
    assert scaled_when_loaded(variant, scaling) == variant


async def test_a_setting_is_laid_over_the_one_before_and_a_load_without_any_over_neither(
    tmp_path: Path,
) -> None:
    config = SquadronConfig.model_validate({"variants": {"mlp": {"source": "mlp", "threads": 2}}})
    setup = RepositorySetup(config=config, store=make_store(tmp_path))
    keeper = RepositoryKeeper(control(Memory()), lambda: None)
    repository = RepositoryControl("app", setup, keeper)

    async def step() -> None:
        """What is asked for runs at once."""
        trial = repository._trials["mlp"]
        running = DeploymentSeen(status="HEALTHY", num_running=1, num_starting=0, message="")
        repository.step({trial.candidate.app: {"it": running}})

    commands = Commands(repository, step)

    async def load(settings: dict[str, Any] | None) -> VariantConfig:
        text = json.dumps(settings)
        sent = {"parameters": {"settings": {"string_value": text}}} if settings else {}
        await commands._load_variant("mlp", json.dumps({"max_batch_size": 4, **sent}), {})
        wanted = repository.serving("mlp")
        assert wanted is not None
        return wanted.variant

    first = await load({"device": "cpu"})
    second = await load({"placement": {"max_memory_mb": 8}})
    third = await load(None)

    assert (first.device, first.placement.is_sharded) == ("cpu", False)
    assert (second.device, second.placement.max_memory_mb, second.threads) == ("cpu", 8, 2)
    assert (third.device, third.placement.is_sharded, third.threads) == ("auto", False, 2)
