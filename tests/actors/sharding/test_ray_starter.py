"""What Ray is asked to reserve for a replica that is cut."""

from __future__ import annotations

from typing import Any

from actors.sharding.ray_starter import sharded_options
from actors.sharding.replica import Sharding
from cluster.config.placement import PlacementConfig
from cluster.placement.partition import LayeredModel, lay_out


def options(**section: Any) -> dict[str, Any]:
    placement = PlacementConfig.model_validate(section)
    model = LayeredModel(num_layers=4, layer_bytes=(1,) * 4, layer_cost=(1.0,) * 4)
    sharding = Sharding(
        placement=placement, layout=lay_out(placement, model), model=model, dtype="float32"
    )
    return sharded_options(sharding, 1.0)


def test_stages_on_two_nodes_reserve_both_nodes_gpus_and_the_replica_is_beside_the_first() -> None:
    sites = [{"node": node, "devices": ["cuda:0", "cuda:1"]} for node in ("a", "b")]

    found = options(
        strategy="pipeline",
        tensor=2,
        shard_map=dict(zip(("layers.0-1", "layers.2-3"), sites, strict=True)),
        nodes={"b": {"zone": "east"}},
    )

    assert found == {
        "ray_actor_options": {"num_cpus": 1.0},
        "placement_group_bundles": [{"CPU": 1.2, "GPU": 2}, {"CPU": 0.2, "GPU": 2}],
        "placement_group_strategy": "STRICT_SPREAD",
        "placement_group_bundle_label_selector": [{}, {"zone": "east"}],
        "max_surge_percent": 0,
    }


def test_slices_on_processors_are_one_bundle_and_a_new_copy_may_stand_beside_the_old() -> None:
    found = options(strategy="tensor", shards=2)

    assert found == {
        "ray_actor_options": {"num_cpus": 1.0},
        "placement_group_bundles": [{"CPU": 1.0}, {"CPU": 0.2}],
        "placement_group_strategy": "STRICT_PACK",
        "max_surge_percent": 100,
    }
