from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.placement.search.facts import Demand, Fixed
from cluster.placement.search.fixed import fixed_layouts, settle
from cluster.placement.search.plan import Plan, PlannedReplica
from tests.cluster.placement.search.making import cluster, demand, model
from tests.cluster.placement.search.test_find_plan import planned

TENSOR_2 = Fixed(strategy="tensor", tensor=2)
LAYER_2 = Fixed(strategy="layer", stages=2)


def fixed(name: str, shape: Fixed, **given: float) -> Demand:
    return replace(demand(name, **given), fixed=shape)


def of(plan: Plan, name: str) -> list[PlannedReplica]:
    return [replica for replica in plan.replicas if replica.model == name]


def test_shapes_that_are_fixed_are_kept_and_the_rest_is_planned() -> None:
    plan = planned(
        cluster(1, 8),
        fixed("cut", TENSOR_2, rate=4.0),
        fixed("turns", LAYER_2, rate=1.0),
        fixed("whole", Fixed(strategy="single"), rate=2.0),
        demand("any", rate=3.0),
    )

    shapes = {name: {str(r.degrees) for r in of(plan, name)} for name in ("cut", "turns", "whole")}
    assert shapes == {"cut": {"tensor 2"}, "turns": {"pipeline 2"}, "whole": {"single"}}
    assert of(plan, "any")
    assert {model.name: model.left_aside for model in plan.models if model.left_aside} == {}
    assert of(plan, "cut")[0].section()["strategy"] == "tensor"
    assert of(plan, "turns")[0].section()["strategy"] == "layer"
    assert of(plan, "turns")[0].reason.startswith("layer 2, as its configuration says: ")


def test_how_many_copies_of_a_fixed_shape_is_the_plans_choice() -> None:
    busy = model(num_layers=2, seconds=0.4, gib=9.0)
    plan = planned(
        cluster(1, 8),
        replace(demand("busy", busy, rate=12.0, slo_s=0.5), fixed=TENSOR_2),
        replace(demand("quiet", busy, rate=0.1), fixed=LAYER_2),
    )

    assert len(of(plan, "busy")) > len(of(plan, "quiet")) == 1


def test_layers_of_a_map_are_kept() -> None:
    by_hand = Fixed(strategy="pipeline", stages=2, runs=(range(1), range(1, 4)))
    plan = planned(cluster(1, 2), fixed("mapped", by_hand))

    (replica,) = of(plan, "mapped")
    assert [shard.layers for shard in replica.shards] == [range(1), range(1, 4)]


def test_a_layer_placement_takes_one_request_at_a_time() -> None:
    (in_turn,) = planned(cluster(1, 2), fixed("m", LAYER_2)).replicas
    (overlapped,) = planned(
        cluster(1, 2), fixed("m", replace(LAYER_2, strategy="pipeline"))
    ).replicas

    assert in_turn.latency_s == overlapped.latency_s
    assert in_turn.requests_per_s == pytest.approx(overlapped.requests_per_s / 2)


def test_what_the_model_does_not_have_is_left_aside_and_the_others_are_kept() -> None:
    odd = Fixed(strategy="tensor", tensor=3)
    short = Fixed(strategy="layer", stages=2, runs=(range(2), range(2, 3)))
    plan = planned(cluster(1, 4), fixed("odd", odd), fixed("short", short), fixed("cut", TENSOR_2))

    aside = {model.name: model.left_aside for model in plan.models}
    assert aside["odd"] == "tensor 3 does not divide its 8 heads"
    assert aside["short"] == "its shard map has 3 layers, it has 4"
    assert aside["cut"] == ""
    assert (
        "odd: its configuration's placement (tensor 3) is left aside: "
        "tensor 3 does not divide its 8 heads" in plan.reasons
    )
    assert of(plan, "odd")


def test_the_largest_shapes_are_left_aside_where_there_are_too_few_devices() -> None:
    asked = (
        fixed("four", Fixed(strategy="pipeline", stages=4)),
        fixed("two", LAYER_2),
        fixed("one", Fixed(strategy="data")),
    )

    settled = settle(cluster(1, 4), asked)

    why = "fixed placements need 7 devices of their own together, there are 4"
    assert [demand.left_aside for demand in settled] == [why, "", ""]


def test_where_they_leave_no_place_for_another_model_all_are_left_aside() -> None:
    plan = planned(
        cluster(1, 2, gib=16), fixed("cut", TENSOR_2), demand("large", model(gib=14.0, heads=9))
    )

    (aside,) = [model.left_aside for model in plan.models if model.name == "cut"]
    assert aside.startswith("with the fixed placements not every model has a place: ")
    assert of(plan, "cut")
    assert of(plan, "large")


def test_every_division_has_every_shape_and_every_device_once() -> None:
    topology = cluster(2, 4)
    asked = (fixed("a", TENSOR_2), fixed("b", LAYER_2), demand("c"))

    found = fixed_layouts(topology, asked)

    assert len(found) > 1
    for layout in found:
        assert {"tensor 2", "pipeline 2"} <= {str(group.degrees) for group in layout.groups}
        sites = [site for group in layout.groups for site in group.sites]
        assert sorted(sites, key=str) == sorted(topology.sites(), key=str)
