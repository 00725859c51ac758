from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.planning.topology import TopologyFile
from cluster.config.yaml_file import check_section, read_section
from cluster.errors import ConfigError
from cluster.topology import Link

ROOT = Path(__file__).parents[4]
DEVICES = {"memory_gib": 10, "tflops": 1, "memory_gb_per_s": 100, "usable": 0.5}


@pytest.mark.parametrize("file", sorted(ROOT.glob("serve_configs/topologies/*.yaml")), ids=str)
def test_every_example_loads(file: Path) -> None:
    assert read_section(file, TopologyFile).to_topology().sites()


def test_equal_nodes_are_counted_and_units_become_si() -> None:
    node = {"name": "n", "count": 2, "devices": {**DEVICES, "count": 3}}
    links = [{"between": ["n-1", "n-0"], "gb_per_s": 2, "latency_us": 5, "measured": True}]
    told = TopologyFile.model_validate({"nodes": [node], "links": links, "handover_us": 7})

    topology = told.to_topology()

    assert [str(site) for site in topology.sites()][::3] == ["n-0/cuda:0", "n-1/cuda:0"]
    assert topology.sites()[0].device.memory_bytes == 5 * 2**30
    assert topology.link("n-0", "n-1") == Link(bytes_per_s=2e9, latency_s=5e-6, is_measured=True)
    assert topology.handover_s == pytest.approx(7e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"links": [{"between": ["n", "x"], "gb_per_s": 1}]}, "no node 'x'; allowed: n"),
        ({"nodes": [{"name": "n", "devices": DEVICES}] * 2}, "the name 'n' is taken twice"),
        ({"models": {"m": {"config": {"a": 1}, "layers": {"count": 1, "weights_gib": 1,
          "gflops": 1}}}}, "config and layers both describe the model"),
        ({"models": {"m": {"measured_ms": {"cpu": 0}}}}, r"measured_ms\.cpu must be above 0"),
        ({"netwrok": {"gb_per_s": 1}}, "netwrok"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(change: dict[str, object], said: str) -> None:
    whole = {"nodes": [{"name": "n", "devices": DEVICES}], **change}

    with pytest.raises(ConfigError, match=said):
        check_section(whole, TopologyFile, source="t.yaml")
