from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.config.placement import PlacementConfig
from cluster.errors import ConfigError

ROOT = Path(__file__).parents[4]
EXAMPLE = ROOT / "serve_configs/topologies/eight_gpus.yaml"
TOPOLOGY = """
nodes:
  - name: a
    devices:
      {{count: {count}, memory_gib: 24, usable: 1.0, tflops: 60, memory_gb_per_s: 800}}
models:
  big: {{rate_per_s: 1, layers: {{count: 32, weights_gib: {gib}, gflops: 1000, heads: [32]}}}}
"""


def topology(folder: Path, *, count: int, gib: float) -> Path:
    file = folder / "topology.yaml"
    file.write_text(TOPOLOGY.format(count=count, gib=gib), encoding="utf-8")
    return file


def run(*arguments: object) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["plan", *map(str, arguments)])
    if isinstance(found.exception, ConfigError):
        raise found.exception
    return found.exit_code, found.stdout, found.stderr


def test_the_example_is_planned_with_devices_shards_bytes_reasons_and_what_was_rejected() -> None:
    code, out, _ = run("--topology", EXAMPLE, "--json", "--calls", 2000)
    plan = json.loads(out)

    assert code == 0
    assert len(plan["devices"]) == 8
    held = {device["device"]: 0 for device in plan["devices"]}
    for shard in plan["shards"]:
        held[shard["device"]] += shard["bytes"]
    assert held == {device["device"]: device["bytes"] for device in plan["devices"]}
    assert all(device["bytes"] <= device["memory_bytes"] for device in plan["devices"])
    assert plan["reasons"]
    assert {"what", "why", "attainment"} == set(plan["rejected"][0])


def test_each_model_has_a_section_of_its_own() -> None:
    _, out, _ = run("--topology", EXAMPLE, "--json", "--calls", 2000)
    plan = json.loads(out)

    assert plan["version"] == 1
    for section in plan["models"]:
        mine = [shard for shard in plan["shards"] if shard["model"] == section["model"]]
        assert [s["rank"] for s in section["shards"]] == [s["rank"] for s in mine]
        assert section["bytes"] == sum(shard["bytes"] for shard in mine)
        assert section["bytes"] == sum(device["bytes"] for device in section["devices"])
        kinds = ("weight_bytes", "kv_bytes", "activation_bytes")
        assert all(s["bytes"] == sum(s[kind] for kind in kinds) for s in section["shards"])
        assert section["reasons"] == list(dict.fromkeys(shard["reason"] for shard in mine))
        assert all(set(r) == {"what", "why", "attainment"} for r in section["rejected"])
    sections = {section["model"]: section for section in plan["models"]}
    refused = {r["what"]: r for r in sections["gpt2-xl"]["rejected"]}
    assert refused["4 x tensor 2"]["attainment"] is None
    assert "does not divide its 25 attention heads" in refused["4 x tensor 2"]["why"]
    assert "of its calls in time against" in sections["bert-large"]["rejected"][0]["why"]


def test_the_keys_for_machines_stay() -> None:
    """Whoever reads a plan relies on these; more may come."""
    _, out, _ = run("--topology", EXAMPLE, "--json", "--calls", 2000)
    plan = json.loads(out)

    assert {"version", "fits", "layout", "attainment", "devices", "models", "shards"} <= set(plan)
    assert {"reasons", "rejected", "mean_latency_s", "placements_simulated"} <= set(plan)
    assert set(plan["models"][0]) >= {
        *("model", "replicas", "attainment", "slo_s", "rate_per_s", "concurrency", "facts"),
        *("note", "weight_bytes", "kv_bytes", "activation_bytes", "bytes", "placement"),
        *("devices", "shards", "reasons", "rejected"),
    }
    assert set(plan["shards"][0]) >= {
        *("model", "group", "strategy", "stages", "tensor", "rank", "stage", "tensor_rank"),
        *("node", "device", "layers", "weight_bytes", "kv_bytes", "activation_bytes", "bytes"),
        "reason",
    }


def test_every_planned_placement_is_one_that_a_configuration_takes() -> None:
    _, out, _ = run("--topology", EXAMPLE, "--json", "--calls", 2000)

    for model in json.loads(out)["models"]:
        PlacementConfig.model_validate(model["placement"])


def test_people_get_tables_a_picture_and_the_reasons(tmp_path: Path) -> None:
    picture = tmp_path / "plan.svg"
    code, out, _ = run("--topology", EXAMPLE, "--calls", 2000, "--svg", picture)

    assert code == 0
    assert "cuda:7" in out
    assert "not taken" in out
    assert "of the simulated calls in time" in out
    drawn = ElementTree.parse(picture).getroot()
    texts = " ".join(element.text or "" for element in drawn.iter())
    assert all(f"cuda:{index}" in texts for index in range(8))


def test_what_is_short_is_told_exactly_and_the_exit_code_is_2(tmp_path: Path) -> None:
    code, out, error = run("--topology", topology(tmp_path, count=2, gib=60), "--json")

    assert code == 2
    assert error.strip().endswith("needs 1 more device of 24.0 GiB, or int8")
    found = json.loads(out)
    assert (found["fits"], found["more_devices"], found["fits_in_int8"]) == (False, 1, True)


def test_devices_are_told_by_the_size_that_is_written_on_them(tmp_path: Path) -> None:
    file = topology(tmp_path, count=2, gib=60)
    file.write_text(file.read_text(encoding="utf-8").replace("usable: 1.0", "usable: 0.9"))
    _, _, error = run("--topology", file)

    assert "do not fit in 2 devices with 43.2 GiB usable together" in error
    assert error.strip().endswith("needs 1 more device of 24.0 GiB, or int8")


def test_a_model_that_fits_with_the_devices_asked_for_is_planned(tmp_path: Path) -> None:
    code, out, _ = run("--topology", topology(tmp_path, count=3, gib=60), "--json")

    assert code == 0
    assert len(json.loads(out)["shards"]) == 3


def test_variants_of_a_configuration_are_planned_with_facts_of_the_topology_file(
    tmp_path: Path,
) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text(
        """
nodes: [{name: here, devices: {kind: cpu, memory_gib: 1, tflops: 0.1, memory_gb_per_s: 10}}]
models:
  echo: {measured_ms: {cpu: 2.0}, layers: {count: 1, weights_gib: 0.1, gflops: 1}}
""",
        encoding="utf-8",
    )
    _, out, _ = run("--config", ROOT / "serve_configs/dev.yaml", "--topology", file, "--json")
    plan = json.loads(out)

    assert [model["model"] for model in plan["models"]] == ["echo"]
    assert plan["models"][0]["facts"] == "measured"
    assert plan["shards"][0]["strategy"] == "single"


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("{other: {}}", r"models\.other: .*dev\.yaml has no such variant; allowed: echo"),
        ("{}", r"models\.echo: its card is inline.*describe it in the topology file"),
    ],
)
def test_a_model_nothing_is_known_of_is_named(tmp_path: Path, models: str, said: str) -> None:
    file = tmp_path / "topology.yaml"
    nodes = "nodes: [{name: a, devices: {memory_gib: 1, tflops: 1, memory_gb_per_s: 1}}]"
    file.write_text(f"{nodes}\nmodels: {models}\n", encoding="utf-8")

    with pytest.raises(ConfigError, match=said):
        run("--config", ROOT / "serve_configs/dev.yaml", "--topology", file)


FIXED = """
applications:
  - name: squadron
    import_path: actors.app:build
    args:
      store: {{path: {store}}}
      variants:
        cut: {{source: cut, placement: {{strategy: tensor, shards: 2}}}}
        mapped: {{source: mapped, placement: {{shard_map: {{layers.0: cpu, layers.1-3: cpu}}}}}}
        odd: {{source: odd, placement: {{strategy: tensor, shards: 3}}}}
        any: {{source: any}}
"""
DEVICES = """
nodes:
  - {name: a, devices: {kind: cpu, count: 6, memory_gib: 4, tflops: 1, memory_gb_per_s: 10}}
models:
  cut: {layers: &layers {count: 4, weights_gib: 1, gflops: 10, heads: [8]}}
  mapped: {layers: *layers}
  odd: {layers: *layers}
  any: {layers: *layers}
"""


def test_a_fixed_placement_is_kept_or_said_to_be_left_aside(tmp_path: Path) -> None:
    topology, config = tmp_path / "topology.yaml", tmp_path / "serve.yaml"
    topology.write_text(DEVICES, encoding="utf-8")
    config.write_text(FIXED.format(store=tmp_path), encoding="utf-8")
    asked = ("--config", config, "--topology", topology, "--calls", 500)

    plan = json.loads(run(*asked, "--json")[1])
    models = {model["model"]: model for model in plan["models"]}

    assert models["cut"]["configured"]["kept"]
    assert models["cut"]["placement"]["strategy"] == "tensor"
    assert models["mapped"]["configured"]["placement"] == "layer 2 (layers 0-0, 1-3)"
    assert [shard["layers"] for shard in models["mapped"]["shards"]][:2] == [[0, 0], [1, 3]]
    assert models["odd"]["configured"] == {
        "placement": "tensor 3",
        "kept": False,
        "why": "tensor 3 does not divide its 8 heads",
    }
    assert models["any"]["configured"] is None
    assert all(PlacementConfig.model_validate(model["placement"]) for model in models.values())

    out = " ".join(run(*asked)[1].split())
    assert "cut: tensor 2, as its configuration says: " in out
    assert "fixed" in out
    assert "odd: its configuration's placement (tensor 3) is left aside: tensor 3 does not" in out
