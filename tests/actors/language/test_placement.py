"""What Ray reserves for a language model's replica."""

from __future__ import annotations

from typing import Any

from actors.language.placement import bundles, deployment_options
from cluster.config.variant import VariantConfig


def variant(**llm: Any) -> VariantConfig:
    return VariantConfig.model_validate(
        {"source": "m", "engine": "vllm", "resources": {"num_cpus": 4}, "llm": llm}
    )


def test_a_replica_of_sixteen_gpus_has_a_bundle_each_and_lives_in_the_first() -> None:
    asked = variant(tensor_parallel=8, pipeline_parallel=2)
    assert asked.llm is not None

    found = bundles(asked.llm, asked.resources)

    assert found == [{"CPU": 4, "GPU": 1}, *[{"GPU": 1.0}] * 15]


def test_its_placement_group_is_spread_as_asked_and_its_actor_takes_no_gpu_beside() -> None:
    found = deployment_options(
        variant(tensor_parallel=2, placement="strict_pack"), {"num_cpus": 4, "num_gpus": 1}
    )

    assert found["placement_group_strategy"] == "STRICT_PACK"
    assert found["ray_actor_options"] == {"num_cpus": 4}
    assert len(found["placement_group_bundles"]) == 2


def test_one_device_without_gpus_reserves_nothing_more() -> None:
    assert deployment_options(variant(), {"num_cpus": 4}) == {}
