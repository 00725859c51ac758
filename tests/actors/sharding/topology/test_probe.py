from __future__ import annotations

import os

from actors.sharding.topology.observe import observed
from actors.sharding.topology.probe import probe


def test_a_probe_counts_the_cores_that_may_be_used() -> None:
    found = probe(measure=False)

    assert found.cores == len(os.sched_getaffinity(0))
    assert found.memory_bytes > 2**28
    assert found.flops_per_s is None


def test_measured_speeds_are_those_of_a_processor() -> None:
    found = probe(measure=True)

    assert found.flops_per_s is not None
    assert found.memory_bytes_per_s is not None
    assert 1e8 < found.flops_per_s < 1e13
    assert 1e8 < found.memory_bytes_per_s < 1e13


def test_without_a_ray_this_machine_is_the_topology() -> None:
    (node,) = observed(measure=False).to_topology().nodes

    assert len(node.devices) >= 1
    assert node.devices[0].kind in ("cpu", "cuda")
