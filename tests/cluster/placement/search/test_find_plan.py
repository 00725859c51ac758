from __future__ import annotations

from dataclasses import replace

import numpy as np

from cluster.placement.search.candidate import Candidate, Evaluation
from cluster.placement.search.facts import Demand, LayerFacts, ModelFacts
from cluster.placement.search.find_plan import find_plan
from cluster.placement.search.plan import Plan, Shortage
from cluster.simulation.cluster.fast import FastSimulator
from cluster.simulation.cluster.trace import draw_trace
from cluster.topology import Topology
from tests.cluster.placement.search.making import GIB, cluster, demand, model


def planned(topology: Topology, *demands: Demand) -> Plan:
    random = np.random.default_rng(5)
    trace = draw_trace(demands, seconds=300, random=random)
    plan = find_plan(topology, demands, FastSimulator(trace))
    assert isinstance(plan, Plan), plan
    return plan


def refused(topology: Topology, *demands: Demand) -> Shortage:
    def never(candidate: Candidate) -> Evaluation:
        raise AssertionError("there is nothing to simulate")

    found = find_plan(topology, demands, never)
    assert isinstance(found, Shortage)
    return found


def test_every_model_has_a_place_and_no_device_holds_more_than_it_can() -> None:
    topology = cluster(2, 4)
    plan = planned(topology, *(demand(f"m{n}", rate=0.5 * n) for n in range(1, 9)))

    assert {replica.model for replica in plan.replicas} == {f"m{n}" for n in range(1, 9)}
    assert all(device.bytes_held <= 16 * GIB for device in plan.devices)
    assert len(plan.devices) == len(topology.sites())


def test_shards_add_up_to_what_devices_hold() -> None:
    plan = planned(cluster(), demand("a", rate=8.0), demand("b", rate=1.0))

    held = {device.site: 0 for device in plan.devices}
    for replica in plan.replicas:
        for shard in replica.shards:
            held[shard.site] += shard.bytes_held
    assert [held[device.site] for device in plan.devices] == [d.bytes_held for d in plan.devices]


def test_a_model_larger_than_a_device_is_cut_and_the_reason_says_so() -> None:
    plan = planned(cluster(gib=8), demand("big", model(gib=20.0)))

    assert all(replica.degrees.num_devices >= 4 for replica in plan.replicas)
    assert "20.0 GiB of weights exceed a device of 8.0 GiB" in plan.replicas[0].reason


def test_a_busy_model_gets_more_copies_than_a_quiet_one() -> None:
    big = model(num_layers=1, heads=9, gib=9.0)
    plan = planned(
        cluster(),
        demand("busy", big, rate=18.0, slo_s=0.25),
        demand("quiet", big, rate=0.1, slo_s=0.25),
    )
    copies = {found.name: found.replicas for found in plan.models}

    assert copies["busy"] > copies["quiet"] >= 1


def test_bursts_of_many_models_share_devices_by_a_pipeline() -> None:
    facts = model(gib=13.0, heads=9)
    bursty = [
        Demand(name=f"m{n}", facts=facts, rate_per_s=1.5, burstiness_cv=4.0, slo_s=0.6)
        for n in range(4)
    ]

    plan = planned(cluster(), *bursty)

    assert "pipeline" in plan.layout
    assert "single" not in plan.layout
    assert any("replication alone (4 x single)" in reason for reason in plan.reasons)


def test_what_was_not_taken_is_kept_with_its_reason() -> None:
    plan = planned(cluster(), demand("odd", model(heads=9), rate=20.0, slo_s=0.3))

    why = {rejected.what: rejected.why for rejected in plan.rejected}
    assert why["2 x tensor 2"] == "odd: tensor 2 does not divide its 9 heads"
    assert why["2 x pipeline 2"].startswith("100.0% in time against 100.0% with ")


def test_the_same_question_has_the_same_answer() -> None:
    asked = [demand(f"m{n}", rate=3.0) for n in range(5)]

    assert planned(cluster(), *asked) == planned(cluster(), *asked)


def test_quick_models_can_get_devices_of_their_own() -> None:
    slow = model("slow", seconds=2.0)
    quick = model("quick", seconds=0.02)
    plan = planned(
        cluster(1, 8),
        demand("slow", slow, rate=2.0, slo_s=8.0),
        demand("quick", quick, rate=20.0, slo_s=0.06),
    )

    assert any(" + " in what for what in [plan.layout, *(r.what for r in plan.rejected)])
    assert plan.attainment > 0.9


def test_the_shortage_counts_the_missing_devices_exactly() -> None:
    five = [demand(f"m{n}", model(gib=20.0)) for n in range(6)]

    found = refused(cluster(1, 4, gib=24), *five)

    assert found.more_devices == 2
    assert found.fits_in_int8
    assert found.message.endswith("needs 2 more devices of 24.0 GiB, or int8")
    assert found.rejected


def test_what_is_in_int8_already_is_not_told_to_be() -> None:
    full = [demand(f"m{n}", model(gib=20.0, weight_bits=8)) for n in range(5)]

    found = refused(cluster(1, 4, gib=24), *full)

    assert found.message.endswith("needs 1 more device of 24.0 GiB")


def test_a_layer_no_device_can_hold_asks_for_larger_ones() -> None:
    odd = model(num_layers=1, gib=99.0, heads=9, weight_bits=8)

    found = refused(cluster(1, 2, gib=24), demand("huge", odd))

    assert found.more_devices is None
    assert "one layer of huge alone takes 99.0 GiB, a device has 24.0 GiB" in found.message


def test_what_caches_take_is_in_what_is_short() -> None:
    layer = LayerFacts(flops=0.1, weight_bytes=GIB, kv_bytes=GIB)
    facts = ModelFacts(kind="kv", layers=(layer,) * 4, can_be_split=False, num_passes=9)
    asked = Demand(name="writer", facts=facts, rate_per_s=1.0, concurrency=16)

    found = refused(cluster(1, 1, gib=24), asked)

    assert "68.0 GiB (4.0 GiB of weights, 64.0 GiB of caches for 16 sequences)" in found.message
    assert "needs 3 more devices of 24.0 GiB" in found.message


def test_a_layer_that_is_too_large_for_its_caches_asks_for_fewer_sequences() -> None:
    layer = LayerFacts(flops=0.1, weight_bytes=GIB, kv_bytes=GIB)
    facts = ModelFacts(kind="kv", layers=(layer,), can_be_split=False, num_passes=9)
    asked = Demand(name="writer", facts=facts, rate_per_s=1.0, concurrency=30)

    found = refused(cluster(1, 1, gib=24), asked)

    assert "needs larger devices, or fewer sequences at once: one layer of writer" in found.message


def test_what_fits_only_on_the_fast_devices_fits_whichever_node_comes_first() -> None:
    fast = cluster(1, 4).nodes[0]
    small = replace(fast.devices[0], kind="cpu", name="cpu:0", memory_bytes=GIB, flops_per_s=0.1)
    head = replace(fast, name="head", devices=(small, small))
    asked = demand("big", model(gib=50.0))

    plans = [
        planned(replace(cluster(), nodes=nodes), asked) for nodes in ((head, fast), (fast, head))
    ]

    for plan in plans:
        assert [shard.site.device.kind for shard in plan.replicas[0].shards] == ["cuda"] * 4
    assert plans[0].attainment == plans[1].attainment


def test_a_shortage_asks_for_more_of_the_fast_devices_whichever_node_comes_last() -> None:
    fast = cluster(1, 4).nodes[0]
    small = replace(fast.devices[0], kind="cpu", name="cpu:0", memory_bytes=GIB, flops_per_s=0.1)
    head = replace(fast, name="head", devices=(small,))
    asked = demand("big", model(gib=70.0, num_layers=8))

    for nodes in ((head, fast), (fast, head)):
        found = refused(replace(cluster(), nodes=nodes), asked)
        assert found.more_devices is not None
        assert found.device_bytes == 16 * GIB
