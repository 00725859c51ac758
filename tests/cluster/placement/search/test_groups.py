from __future__ import annotations

from collections import Counter
from dataclasses import replace

from cluster.placement.search.groups import layouts
from cluster.topology import Device, Link, Topology
from tests.cluster.placement.search.making import cluster


def names(num_nodes: int = 1, devices: int = 4) -> list[str]:
    topology = cluster(num_nodes, devices)
    return [layout.name for layout in layouts(topology, topology.sites())]


def test_every_shape_of_a_node_is_a_layout() -> None:
    assert names() == [
        "4 x single",
        "2 x pipeline 2",
        "2 x tensor 2",
        "1 x pipeline 3, 1 x single",
        "1 x tensor 3, 1 x single",
        "1 x pipeline 4",
        "1 x pipeline 2 x tensor 2",
        "1 x tensor 4",
    ]


def test_slices_of_a_stage_never_leave_a_node() -> None:
    topology = cluster(4, 2)

    for layout in layouts(topology, topology.sites()):
        for group in layout.groups:
            tensor = group.degrees.tensor
            for begin in range(0, len(group.sites), tensor):
                assert len({site.node for site in group.sites[begin : begin + tensor]}) == 1


def test_every_device_is_in_one_group_whatever_is_left_over() -> None:
    topology = cluster(3, 5)
    whole = Counter(topology.sites())

    for layout in layouts(topology, topology.sites()):
        assert Counter(site for group in layout.groups for site in group.sites) == whole


def test_what_is_left_over_becomes_smaller_groups() -> None:
    assert "1 x pipeline 4, 1 x pipeline 2, 1 x single" in names(devices=7)


def test_devices_of_two_classes_share_no_group() -> None:
    topology = cluster(2, 2)
    other = Device(
        name="cuda:0", kind="cuda", memory_bytes=99, flops_per_s=2.0, memory_bytes_per_s=1.0
    )
    nodes = (topology.nodes[0], replace(topology.nodes[1], devices=(other, other)))
    mixed = replace(topology, nodes=nodes)

    for layout in layouts(mixed, mixed.sites()):
        for group in layout.groups:
            assert len({site.device.memory_bytes for site in group.sites}) == 1


def mixed(order: tuple[int, ...]) -> Topology:
    """A small slow node and one with four large fast devices."""
    topology = cluster(2, 4)
    slow = Device(
        name="cpu:0", kind="cpu", memory_bytes=99, flops_per_s=0.1, memory_bytes_per_s=1.0
    )
    nodes = (replace(topology.nodes[0], devices=(slow,)), topology.nodes[1])
    return replace(topology, nodes=tuple(nodes[n] for n in order))


def test_the_order_of_nodes_changes_no_layout() -> None:
    one, other = mixed((0, 1)), mixed((1, 0))

    found = [layouts(each, each.sites()) for each in (one, other)]

    assert found[0] == found[1]
    assert "1 x pipeline 4, 1 x single" in [layout.name for layout in found[0]]


def test_a_class_that_lies_apart_is_one_class() -> None:
    topology = cluster(3, 1)
    slow = replace(topology.nodes[1].devices[0], flops_per_s=0.1)
    nodes = (topology.nodes[0], replace(topology.nodes[1], devices=(slow,)), topology.nodes[2])
    apart = replace(topology, nodes=nodes)

    assert "1 x pipeline 2, 1 x single" in [lay.name for lay in layouts(apart, apart.sites())]


def test_the_slowest_hop_of_a_pipeline_is_its_pace() -> None:
    topology = replace(
        cluster(3, 1), links={("node1", "node2"): Link(bytes_per_s=7.0, is_measured=True)}
    )
    two, three = ("node0", "node1"), ("node1", "node2")

    by_name = {lay.name: lay for lay in layouts(topology, topology.sites()[1:])}
    ground = next(iter(by_name["1 x pipeline 2"].grounds.values()))

    assert ground.between.bytes_per_s == 7.0
    assert topology.link(*two).bytes_per_s != topology.link(*three).bytes_per_s
