"""Replicas, their shards and what autoscaling may ask for, against what the pods offer."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.kubernetes.finding import Finding
from cluster.kubernetes.serve.fit import check_fit
from tests.cluster.kubernetes.change import (
    Change,
    arguments,
    autoscaled,
    gpus,
    limits,
    only,
    set_env,
    worker,
)
from tests.cluster.kubernetes.change import ray as ray_container
from tests.cluster.kubernetes.manifests import service

LANGUAGE = {"source": "smollm2-135m-instruct", "engine": "vllm"}


def misfits(*changes: Change) -> list[Finding]:
    manifest = service()
    for change in changes:
        change(manifest)
    return [each for each in check_fit(manifest) if each.rule == "resource-fit"]


def nodes(number: int) -> Change:
    def change(manifest: Any) -> None:
        worker(manifest).update(replicas=number, maxReplicas=number)

    return change


@pytest.mark.parametrize(("num_gpus", "is_enough"), [(2, True), (1, False)])
def test_every_shard_of_a_tensor_placement_takes_its_gpu(num_gpus: int, is_enough: bool) -> None:
    found = misfits(
        lambda m: gpus(m, num_gpus),
        lambda m: only(
            m,
            placement={"strategy": "tensor", "shards": 2, "devices": ["cuda:0", "cuda:1"]},
        ),
    )

    assert bool(found) != is_enough
    if found:
        assert "m: 0 of 1 replicas fit (each 3 bundles" in found[0].message
        assert "STRICT_PACK" in found[0].message


def test_slices_of_a_layer_stay_on_one_node_and_stages_need_not() -> None:
    two = (nodes(2), lambda m: gpus(m, 1))
    devices = ["cuda:0", "cuda:1"]
    tensor = {"strategy": "tensor", "shards": 2, "devices": devices}
    pipeline = {"strategy": "pipeline", "shards": 2, "devices": devices}

    assert misfits(*two, lambda m: only(m, placement=tensor))
    assert misfits(*two, lambda m: only(m, placement=pipeline)) == []
    apart = {**pipeline, "bundles": "STRICT_SPREAD"}
    assert misfits(nodes(1), lambda m: gpus(m, 2), lambda m: only(m, placement=apart))


def test_shards_that_name_one_gpu_share_it() -> None:
    shards = {"strategy": "tensor", "shards": 2, "devices": ["cuda:0", "cuda:0"]}

    assert misfits(lambda m: gpus(m, 1), lambda m: only(m, placement=shards)) == []


@pytest.mark.parametrize(("num_nodes", "is_enough"), [(2, True), (1, False)])
def test_a_language_model_takes_tensor_times_pipeline_gpus(num_nodes: int, is_enough: bool) -> None:
    llm = {"tensor_parallel": 4, "pipeline_parallel": 2}

    found = misfits(nodes(num_nodes), lambda m: gpus(m, 4), lambda m: only(m, **LANGUAGE, llm=llm))

    assert bool(found) != is_enough


def test_a_language_model_takes_a_gpu_where_there_are_some() -> None:
    def two_models(manifest: Any) -> None:
        only(manifest, **LANGUAGE, llm={})
        arguments(
            manifest,
            lambda args: args["variants"].update({"n": {**LANGUAGE, "llm": {}}}),
        )

    assert misfits(two_models) == []  # on CPUs
    assert misfits(two_models, lambda m: gpus(m, 1))
    assert misfits(two_models, lambda m: gpus(m, 2)) == []


@pytest.mark.parametrize(("most", "is_enough"), [(2, True), (3, False)])
def test_the_most_that_autoscaling_may_ask_for_must_fit(most: int, is_enough: bool) -> None:
    found = misfits(
        nodes(2),
        lambda m: gpus(m, 1),
        lambda m: only(m, resources={"num_gpus": 1}, autoscaling={"max_replicas": most}),
    )

    assert bool(found) != is_enough


def test_a_budget_bounds_what_all_together_may_ask_for() -> None:
    def two(manifest: Any) -> None:
        one = {"resources": {"num_gpus": 1}, "autoscaling": {"max_replicas": 3}}
        only(manifest, **one)
        arguments(
            manifest,
            lambda args: args["variants"].update({"n": {"source": "all-minilm-l6-v2", **one}}),
        )

    def budget(manifest: Any) -> None:
        arguments(manifest, lambda args: args.update(autoscaling={"max_cost": 4}))

    four = (nodes(4), lambda m: gpus(m, 1))
    assert misfits(*four, two)
    assert misfits(*four, two, budget) == []


@pytest.mark.parametrize(("memory", "is_enough"), [("6Gi", True), ("5Gi", False)])
def test_memory_that_is_reserved_must_be_there(memory: str, is_enough: bool) -> None:
    found = misfits(
        lambda m: limits(m, memory=memory),
        lambda m: only(m, replicas=2, resources={"memory_bytes": 3 << 30}),
    )

    assert bool(found) != is_enough
    assert all("3072 MiB" in each.message for each in found)


def test_keys_and_values_on_a_cpu_are_memory_of_the_pod() -> None:
    llm = {"kv_cache_bytes": 9 << 30}

    assert misfits(lambda m: only(m, **LANGUAGE, device="cpu", llm=llm))


def test_memory_of_a_shard_is_counted() -> None:
    shards = {"strategy": "layer", "shards": 3, "max_memory_mb": 3000}

    assert misfits(lambda m: only(m, placement=shards))
    assert misfits(nodes(2), lambda m: only(m, placement=shards)) == []


def test_a_shard_that_asks_for_a_label_goes_nowhere_else() -> None:
    place = {
        "shard_map": {
            "layers.0-2": {"device": "cpu", "labels": {"zone": "a"}},
            "layers.3-5": {"device": "cpu", "labels": {"zone": "b"}},
        }
    }

    def labelled(manifest: Any) -> None:
        groups = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        groups.append({**groups[0], "groupName": "others", "labels": {"zone": "b"}})
        groups[0]["labels"] = {"zone": "a"}

    assert misfits(lambda m: only(m, placement=place))
    assert misfits(labelled, lambda m: only(m, placement=place)) == []


def test_doors_of_all_nodes_are_counted() -> None:
    def doors(manifest: Any) -> None:
        for container in (ray_container(manifest),):
            set_env(container, "SQUADRON_NODES", "2")
        head = manifest["spec"]["rayClusterConfig"]["headGroupSpec"]
        set_env(head["template"]["spec"]["containers"][0], "SQUADRON_NODES", "2")
        arguments(manifest, lambda args: args["server"].update(doors_per_node=16))

    found = misfits(nodes(1), lambda m: limits(m, cpu="3"), doors)

    assert any(each.message.startswith("gateway: ") for each in found)


def test_a_groups_own_resources_are_what_ray_sees() -> None:
    two = {"resources": {"num_gpus": 2}}

    assert misfits(lambda m: gpus(m, 1), lambda m: only(m, **two))
    assert (
        misfits(
            lambda m: gpus(m, 1),
            lambda m: worker(m).update(resources={"GPU": "2"}),
            lambda m: only(m, **two),
        )
        == []
    )


def test_pods_that_nobody_adds_are_not_counted() -> None:
    """`maxReplicas` is a bound of Ray's autoscaler, which is off here."""
    manifest = service()
    gpus(manifest, 1)
    only(manifest, replicas=2, resources={"num_gpus": 1})
    worker(manifest).update(replicas=1, maxReplicas=2)
    alone = [each.rule for each in check_fit(manifest)]
    autoscaled(manifest)

    assert alone == ["resource-fit"]
    assert check_fit(manifest) == []
