from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cluster.config.placement import PlacementConfig
from cluster.errors import ConfigError
from cluster.placement.automatic import Chosen, choose, is_open
from cluster.placement.partition import LayeredModel, lay_out
from cluster.placement.reservation import reserve
from cluster.placement.room import Need, left_over, needs_of, shares_left
from cluster.placement.search.facts import Demand, LayerFacts, ModelFacts
from cluster.simulation.cluster.fast import FastSimulator
from cluster.simulation.cluster.trace import draw_trace
from cluster.topology import Device, Link, Node, Topology

MIB = 2**20


def ground(*, devices: int = 4, memory_mb: int = 1000, kind: str = "cuda") -> Topology:
    each = tuple(
        Device(
            name=f"{kind}:{index}",
            kind=kind,
            memory_bytes=memory_mb * MIB,
            flops_per_s=1e12,
            memory_bytes_per_s=1e12,
        )
        for index in range(devices)
    )
    link = Link(bytes_per_s=1e10)
    return Topology(nodes=(Node(name="a", devices=each, link=link),), network=link)


def facts(*, layer_mb: int = 100, splits: tuple[tuple[str, int], ...] = ()) -> ModelFacts:
    layer = LayerFacts(flops=1e9, weight_bytes=layer_mb * MIB, activation_bytes=1024)
    return ModelFacts(kind="m", layers=(layer,) * 8, splits=splits, can_be_split=bool(splits))


LAYERED = LayeredModel(num_layers=8, layer_bytes=(100 * MIB,) * 8, layer_cost=(1.0,) * 8)


def simulate(demands: tuple[Demand, ...]) -> FastSimulator:
    return FastSimulator(draw_trace(demands, seconds=500.0, random=np.random.default_rng(0)))


def chosen(topology: Topology, model: ModelFacts, **section: Any) -> Chosen:
    config = PlacementConfig.model_validate({"strategy": "auto", **section})
    return choose("m", config, model, topology, simulate)


def test_what_fits_on_one_device_stays_whole() -> None:
    found = chosen(ground(), facts(layer_mb=10))

    assert found.config.strategy == "single"
    assert "whole: 80.0 MiB of weights on one device" in found.reason


def test_what_exceeds_a_device_is_cut_and_the_reason_says_so() -> None:
    found = chosen(ground(memory_mb=450), facts(), heartbeat_timeout_s=3)

    assert (found.config.strategy, found.config.shards) == ("pipeline", 2)
    assert found.config.devices == ("a/cuda:0", "a/cuda:1")
    assert found.config.heartbeat_timeout_s == 3
    assert "800.0 MiB of weights exceed a device of 450.0 MiB" in found.reason


def test_a_cap_counts_of_the_weights_of_a_device() -> None:
    found = chosen(ground(), facts(), max_memory_mb=210)

    assert found.config.shards == 4
    assert "800.0 MiB of weights exceed the 210.0 MiB of max_memory_mb" in found.reason


def test_a_cap_of_weights_does_not_bound_what_is_computed_beside_them() -> None:
    layer = LayerFacts(flops=1e9, weight_bytes=100 * MIB, working_bytes=500 * MIB)
    wide = ModelFacts(kind="wide", layers=(layer,) * 8, can_be_split=False)

    assert chosen(ground(), wide, max_memory_mb=210).config.shards == 4
    with pytest.raises(ConfigError, match=r"500\.0 MiB of activations of 1 request at once"):
        chosen(ground(memory_mb=550), wide)


def test_more_devices_are_taken_where_one_is_too_slow_for_the_demand() -> None:
    demand = {"rate_per_s": 200, "slo_ms": 100}  # one device computes 125 a second

    found = chosen(ground(), facts(), demand=demand)

    assert found.config.shards is not None
    assert "1 device a replica" in found.reason


def test_slices_that_were_asked_for_are_in_the_plan() -> None:
    found = chosen(ground(), facts(splits=(("heads", 8),)), tensor=2)

    assert found.config.strategy == "tensor" or found.config.tensor == 2


def mixed(*, gpus: int = 2, labels: tuple[tuple[str, str], ...] = ()) -> Topology:
    """A head with two small slow cores comes first; a node with GPUs comes after it."""
    head = ground(devices=2, memory_mb=500, kind="cpu").nodes[0]
    cores = tuple(replace(core, flops_per_s=1e9) for core in head.devices)
    fast = replace(ground(devices=gpus).nodes[0], name="b", labels=labels)
    nodes = (replace(head, name="head", devices=cores), *((fast,) if gpus else ()))
    return replace(ground(), nodes=nodes)


def test_gpus_are_taken_before_the_cores_of_the_node_that_comes_first() -> None:
    whole = chosen(mixed(), facts(layer_mb=10))
    cut = chosen(mixed(), facts(), max_memory_mb=450)

    # 80 of 1000 MiB and what the process itself takes of the card.
    assert (whole.config.strategy, whole.num_gpus) == ("single", 0.6)
    assert "0.6 of a GPU, which others may share" in whole.reason
    assert cut.config.devices == ("b/cuda:0", "b/cuda:1")
    assert cut.config.bundles == "PACK"


def test_cores_are_taken_where_no_gpu_is_left() -> None:
    found = chosen(mixed(gpus=0), facts(layer_mb=10))

    assert (found.config.strategy, found.num_gpus) == ("single", 0)


def test_the_kind_of_gpu_that_was_planned_for_is_asked_for() -> None:
    found = chosen(mixed(labels=(("card", "H200"),)), facts(), max_memory_mb=450)

    assert found.config.nodes == {"b": {"card": "H200"}}


def test_a_second_model_is_planned_on_what_the_first_one_leaves() -> None:
    topology = ground(devices=4)
    first = chosen(topology, facts(), max_memory_mb=450)
    reserved = reserve(lay_out(first.config, LAYERED), first.config)

    left = left_over(topology, needs_of(reserved))
    second = chosen(left, facts(), max_memory_mb=450)

    assert first.config.devices == ("a/cuda:0", "a/cuda:1")
    assert second.config.devices == ("a/cuda:2", "a/cuda:3")
    with pytest.raises(ConfigError, match="no device is left for it; there is no device"):
        chosen(left_over(left, needs_of(reserved)), facts(), max_memory_mb=450)


def test_replicas_of_slices_take_whole_pairs_of_a_node_each() -> None:
    """Three on each of two nodes: the odd ones are left."""
    node = ground(devices=3).nodes[0]
    topology = replace(ground(), nodes=(node, replace(node, name="b")))

    found = choose(
        "m",
        PlacementConfig(strategy="auto", tensor=2, max_memory_mb=450),
        facts(splits=(("heads", 8),)),
        topology,
        simulate,
        replicas=2,
    )

    assert (found.config.strategy, found.config.shards) == ("tensor", 2)


def test_a_copy_that_fills_a_gpu_takes_it_whole() -> None:
    assert chosen(ground(), facts(layer_mb=100)).num_gpus == 1


def test_a_copy_that_is_busy_takes_as_much_of_the_gpu_as_of_its_time() -> None:
    large = ground(memory_mb=100_000)  # 8 ms a request
    demand = {"rate_per_s": 50, "slo_ms": 1000}

    quiet, busy = chosen(large, facts()), chosen(large, facts(), demand=demand)

    assert quiet.num_gpus == 0.02
    assert busy.num_gpus == pytest.approx(0.4, abs=0.03)


def test_what_others_leave_of_a_gpu_is_planned_for() -> None:
    """Shares are those of the whole card: half of a half is a quarter."""
    half = shares_left(ground(devices=1, memory_mb=8000), [Need(num_devices=0.5)])

    found = chosen(half, facts(layer_mb=100))

    assert found.config.strategy == "single"
    assert found.num_gpus == 0.17  # 1312 of 8000 MiB
    with pytest.raises(ConfigError, match=r"placement\.strategy auto"):
        chosen(half, facts(layer_mb=600))


def test_shards_of_a_group_have_no_device_that_others_are_on() -> None:
    halves = shares_left(ground(devices=4), [Need(num_devices=0.5)] * 8)
    assert halves.nodes == ()
    parts = shares_left(ground(devices=4), [Need(num_devices=0.6)] * 4)
    assert len(parts.nodes) == 4

    with pytest.raises(ConfigError):
        chosen(parts, facts(layer_mb=60))


def test_what_no_shape_holds_is_refused_saying_what_is_short() -> None:
    with pytest.raises(ConfigError, match=r"needs 2 more devices of 150\.0 MiB") as caught:
        chosen(ground(devices=6, memory_mb=150), facts())

    assert caught.value.details["allowed"] == "what fits in 6 x cuda of 150.0 MiB"


def test_capped_shards_may_outnumber_the_cores() -> None:
    found = chosen(ground(devices=2, kind="cpu"), facts(), max_memory_mb=210)

    assert is_open(found.config)
    assert "so shards share cores" in found.reason


def test_who_counts_shards_has_decided() -> None:
    assert is_open(PlacementConfig(strategy="auto"))
    assert not is_open(PlacementConfig(strategy="auto", shards=2))
    assert not is_open(PlacementConfig(strategy="layer", shards=2))
