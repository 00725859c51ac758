"""Variants of one configuration are placed together, on what each leaves the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actors.deployments import replica_setups
from actors.sharding.replica import Placed
from actors.sharding.room import Room, replica_needs
from actors.variant_facts import Origin
from cluster.config.server import ServerConfig
from cluster.config.variant import VariantConfig
from cluster.errors import ConfigError
from cluster.placement.capacity import NodeRoom
from cluster.placement.room import Need
from tests.cluster.engines.sharded.directories import llama, saved
from tests.cluster.placement.search.making import cluster

LAYERS = {"count": 4, "weights_gib": 20.0, "gflops": 1.0}
"""Too large for one of the devices here, which have 16 GiB."""


def variant(**given: Any) -> VariantConfig:
    return VariantConfig.model_validate({"source": "m", "options": {}, **given})


def left_open(**given: Any) -> VariantConfig:
    return variant(placement={"strategy": "auto", "demand": {"layers": LAYERS}}, **given)


def by_hand() -> VariantConfig:
    return variant(
        placement={"strategy": "layer", "shards": 2, "devices": ["n/cuda:0", "n/cuda:1"]}
    )


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    card = saved(llama(), tmp_path)
    return Origin(card=card, folder=tmp_path, engine="torch")


def devices(setups: dict[str, Any], name: str) -> tuple[str, ...]:
    found: tuple[str, ...] = setups[name].sharding.placement.devices
    return found


def setups_of(variants: dict[str, VariantConfig], origin: Origin, room: Room) -> dict[str, Any]:
    return replica_setups(variants, dict.fromkeys(variants, origin), ServerConfig(), room)


def test_what_is_left_open_gets_what_the_others_leave(origin: Origin) -> None:
    variants = {"first": left_open(), "second": left_open(), "fixed": by_hand()}

    setups = setups_of(variants, origin, Room(cluster(1, 6)))

    assert list(setups) == ["first", "second", "fixed"]
    assert devices(setups, "first") == ("node0/cuda:2", "node0/cuda:3")
    assert devices(setups, "second") == ("node0/cuda:4", "node0/cuda:5")


def test_what_has_no_room_beside_the_others_is_refused_naming_it(origin: Origin) -> None:
    with pytest.raises(ConfigError, match=r"variants\.first: placement\.strategy auto"):
        setups_of({"first": left_open(), "fixed": by_hand()}, origin, Room(cluster(1, 3)))


def test_what_the_cluster_does_not_have_is_refused_naming_variant_layers_and_device(
    origin: Origin,
) -> None:
    room = Room(cluster(1, 1), nodes=[NodeRoom(name="n", num_cpus=4, num_gpus=1)])

    with pytest.raises(ConfigError, match=r"variants\.fixed: placement\.devices: layers .*cuda:1"):
        setups_of({"fixed": by_hand()}, origin, room)


def test_an_optional_variant_that_cannot_be_placed_is_unavailable_and_the_others_are_not(
    origin: Origin,
) -> None:
    optional = by_hand().model_copy(update={"optional": True})
    room = Room(cluster(1, 1), nodes=[NodeRoom(name="n", num_cpus=4)])

    found = setups_of({"optional": optional, "plain": variant()}, origin, room)

    assert isinstance(found["optional"], ConfigError)
    assert found["plain"].sharding is None


def test_degrees_of_a_language_model_ask_for_a_gpu_each() -> None:
    told = variant(engine="vllm", llm={"tensor_parallel": 2, "pipeline_parallel": 2})
    room = Room(nodes=[NodeRoom(name="n", num_cpus=4, num_gpus=3)])

    with pytest.raises(ConfigError, match=r"variants\.big: llm: part 3 of tensor_parallel 2 x"):
        room.check("big", told, Placed())


def test_small_models_share_the_last_gpu(origin: Origin) -> None:
    """Each is planned for what the ones before it leave of the only card."""
    small = {"layers": {"count": 4, "weights_gib": 2.0, "gflops": 0.001}, "rate_per_s": 0.1}
    section = {"strategy": "auto", "demand": small}
    variants = {name: variant(placement=section) for name in "abc"}

    setups = setups_of(variants, origin, Room(cluster(1, 1)))

    assert [setups[name].planned_gpus for name in "abc"] == pytest.approx([0.16] * 3)


def test_a_replica_of_one_process_needs_the_gpus_that_it_reserves() -> None:
    reserving = variant(resources={"num_gpus": 0.5})

    assert replica_needs(reserving, None, planned_gpus=0) == (Need(num_devices=0.5),)
    assert replica_needs(variant(), None, planned_gpus=1) == (Need(num_devices=1),)
    assert replica_needs(variant(), None, planned_gpus=0) == ()
