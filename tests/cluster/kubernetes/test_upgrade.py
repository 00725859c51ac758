"""What applying a change would do is said before it is applied."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from cluster.kubernetes.finding import Document
from cluster.kubernetes.upgrade import predict_upgrade
from tests.cluster.kubernetes.manifests import service
from tests.cluster.kubernetes.test_checks import cluster, pod, ray, worker


@pytest.mark.parametrize(
    ("change", "effect"),
    [
        (lambda m: None, "none"),
        (lambda m: m["spec"].update(serveConfigV2="applications: []"), "in-place"),
        (lambda m: ray(m).update(image="squadron:0.2.0"), "new-cluster"),
        (lambda m: ray(m)["env"].append({"name": "A", "value": "1"}), "new-cluster"),
        (lambda m: cluster(m)["workerGroupSpecs"].pop(), "new-cluster"),
        (lambda m: pod(m).update(tolerations=[{"operator": "Exists"}]), "in-place"),
        (lambda m: cluster(m)["workerGroupSpecs"].append({"groupName": "more"}), "in-place"),
        (lambda m: worker(m).update(replicas=7, maxReplicas=9), "in-place"),
    ],
)
def test_the_effect_of_a_change(change: Callable[[Document], object], effect: str) -> None:
    old = service()
    new = copy.deepcopy(old)
    change(new)

    assert predict_upgrade(old, new).effect == effect


def test_a_new_cluster_needs_its_pods_and_gpus_twice() -> None:
    old = service()
    worker(old).update(replicas=3)
    ray(old)["resources"]["limits"]["nvidia.com/gpu"] = 2
    new = copy.deepcopy(old)
    ray(new).update(image="squadron:0.2.0")

    prediction = predict_upgrade(old, new)

    assert (prediction.extra_pods, prediction.extra_gpus) == (4, 6)
    assert prediction.reasons == (
        "/spec/rayClusterConfig/workerGroupSpecs/0/template/spec/containers/0/image",
    )


def test_under_none_nothing_happens() -> None:
    old = service()
    old["spec"]["upgradeStrategy"] = {"type": "None"}
    new = copy.deepcopy(old)
    ray(new).update(image="squadron:0.2.0")

    assert predict_upgrade(old, new).effect == "ignored"
