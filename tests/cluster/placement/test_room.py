from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.placement.room import Need, left_over, of_kind, shares_left
from cluster.topology import Node, Topology
from tests.cluster.placement.search.making import GIB, cluster


def sizes(topology: Topology) -> dict[str, int]:
    return {node.name: len(node.devices) for node in topology.nodes}


def with_cores(topology: Topology, count: int) -> Topology:
    core = replace(topology.nodes[0].devices[0], kind="cpu", name="cpu:0")
    head = Node(name="head", devices=(core,) * count, link=topology.network)
    return replace(topology, nodes=(head, *topology.nodes))


def test_a_need_is_served_by_the_node_on_which_it_leaves_least() -> None:
    topology = cluster(2, 4)

    left = left_over(topology, [Need(num_devices=1), Need(num_devices=3), Need(num_devices=4)])

    assert sizes(left) == {}
    assert sizes(left_over(topology, [Need(num_devices=3), Need(num_devices=1)])) == {"node1": 4}


def test_the_devices_of_one_need_are_on_one_node_and_what_cannot_be_waits() -> None:
    assert sizes(left_over(cluster(2, 2), [Need(num_devices=3)])) == {"node0": 2, "node1": 2}


def test_shares_of_a_gpu_add_up() -> None:
    halves = [Need(num_devices=0.5)] * 3

    assert sizes(left_over(cluster(1, 4), halves)) == {"node0": 2}


def test_what_is_left_of_a_gpu_is_told_with_its_memory() -> None:
    needs = [Need(num_devices=0.25), Need(num_devices=0.25), Need(num_devices=1)]

    (left,) = shares_left(cluster(1, 4), needs).nodes

    assert (left.name, left.devices[0].share) == ("node0/cuda:1", 0.5)
    assert left.devices[0].memory_bytes == 8 * GIB
    assert sizes(left_over(cluster(1, 4), needs)) == {"node0": 2}


def test_a_share_goes_on_the_fullest_gpu_that_has_as_much() -> None:
    needs = [Need(num_devices=share) for share in (0.7, 0.6, 0.3)]

    (left,) = shares_left(cluster(1, 3), needs).nodes

    assert left.devices[0].share == pytest.approx(0.4)


def test_labels_are_asked_for() -> None:
    topology = cluster(2, 2)
    nodes = (topology.nodes[0], replace(topology.nodes[1], labels=(("zone", "b"),)))

    left = left_over(replace(topology, nodes=nodes), [Need(num_devices=1, labels={"zone": "b"})])

    assert sizes(left) == {"node0": 2, "node1": 1}


def test_cores_are_shared_where_none_is_left() -> None:
    topology = with_cores(cluster(1, 2), 2)

    one = left_over(topology, [Need(num_devices=1, kind="cpu")])
    all_of_them = left_over(topology, [Need(num_devices=2, kind="cpu")])

    assert sizes(one) == {"head": 1, "node0": 2}
    assert sizes(all_of_them) == {"head": 2, "node0": 2}


def test_a_variant_that_names_a_device_gets_no_other() -> None:
    topology = with_cores(cluster(1, 2), 2)

    assert sizes(of_kind(topology, "cpu")) == {"head": 2}
    assert sizes(of_kind(topology, "cuda")) == {"node0": 2}
    assert of_kind(topology, "auto") == topology
