"""What applying a change would do is said before it is applied."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.cli.kubernetes import read_crds
from cluster.kubernetes.duration import StartTimes
from cluster.kubernetes.finding import Document, services_in
from cluster.kubernetes.upgrade import predict_upgrade
from tests.cluster.kubernetes.change import limits
from tests.cluster.kubernetes.manifests import KUSTOMIZATIONS, built, service
from tests.cluster.kubernetes.test_checks import CRDS, cluster, needs_crds, pod, ray, worker


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
        (lambda m: limits(m, memory="8192Mi", cpu="4000m"), "none"),
        (lambda m: limits(m, memory="8193Mi"), "new-cluster"),
        (lambda m: m["spec"].update(suspend=True), "suspended"),
        (lambda m: m["metadata"].update(name="squadron-next"), "another-service"),
        (lambda m: m["metadata"].update(annotations={"team": "a"}), "none"),
    ],
)
def test_the_effect_of_a_change(change: Callable[[Document], object], effect: str) -> None:
    old = service()
    new = copy.deepcopy(old)
    change(new)

    assert predict_upgrade(old, new).effect == effect


def as_a_server_holds_it(manifest: Document) -> None:
    for group in (cluster(manifest)["headGroupSpec"], worker(manifest)):
        for port in group["template"]["spec"]["containers"][0]["ports"]:
            port["protocol"] = "TCP"
    worker(manifest).update(numOfHosts=1, priority=0)


def test_defaults_that_a_server_filled_in_are_no_change() -> None:
    running = service()
    as_a_server_holds_it(running)

    for old, new in ((running, service()), (service(), running)):
        assert predict_upgrade(old, new).reasons == ()
    worker(running)["numOfHosts"] = 2
    assert predict_upgrade(running, service()).effect == "new-cluster"


@needs_crds
@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda each: each.name)
def test_every_default_of_the_crd_that_our_manifests_meet_is_no_change(folder: Path) -> None:
    (crd,) = [each for each in read_crds(CRDS) if each.kind == "RayService"]
    for one in services_in(built(folder)):
        running = crd.filled(one)

        assert running != one
        assert predict_upgrade(running, one).effect == "none"


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


def test_a_second_cluster_stands_until_its_pods_its_replicas_the_delay_and_the_drain_are_over() -> (
    None
):
    old = service()
    new = copy.deepcopy(old)
    ray(new).update(image="squadron:0.2.0")

    found = predict_upgrade(old, new, StartTimes(pod_s=300, replica_s=40))

    # The base keeps the old cluster for 180 s; its pods end at most 10 + 90 s after that.
    assert found.duration_s == 300 + 40 + 180 + 100
    assert "deletion delay 180 s" in found.duration


def test_an_incremental_upgrade_takes_its_steps_as_well() -> None:
    old = service()
    old["spec"]["upgradeStrategy"] = {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": {"stepSizePercent": 30, "intervalSeconds": 20},
    }
    new = copy.deepcopy(old)
    ray(new).update(image="squadron:0.2.0")

    found = predict_upgrade(old, new, StartTimes(pod_s=0, replica_s=0))

    assert found.duration_s == 4 * 20 + 180 + 100


def test_a_change_of_the_serve_config_takes_as_many_waves_as_serve_makes_of_the_replicas() -> None:
    old = service()
    new = copy.deepcopy(old)
    new["spec"]["serveConfigV2"] = old["spec"]["serveConfigV2"].replace(
        "replicas: 2", "replicas: 12", 1
    )

    found = predict_upgrade(old, new, StartTimes(replica_s=30))

    # Of 12 replicas two at a time; each has 30 s to start and 60 + 5 s to finish its requests.
    assert found.duration_s == 6 * (30 + 65)


def test_what_rolls_nothing_takes_no_time() -> None:
    old = service()
    new = copy.deepcopy(old)
    worker(new).update(replicas=7, maxReplicas=9)

    assert predict_upgrade(old, new).duration_s == 0


@needs_crds
def test_a_change_that_a_server_refuses_is_told() -> None:
    (crd,) = [each for each in read_crds(CRDS) if each.kind == "RayService"]
    old = service()
    cluster(old)["gcsFaultToleranceOptions"] = {"backend": "redis", "redisAddress": "redis:6379"}
    new = copy.deepcopy(old)
    cluster(new)["gcsFaultToleranceOptions"] = {"backend": "rocksdb"}

    (found,) = crd.check_change(old, new)

    assert found.rule == "crd-cel"
    assert found.path == "/spec/rayClusterConfig/gcsFaultToleranceOptions/backend"
    assert "immutable" in found.message
    assert crd.check_change(old, old) == []


def test_a_service_that_was_suspended_begins_with_a_whole_cluster() -> None:
    old = service()
    old["spec"]["suspend"] = True
    worker(old).update(replicas=1, minReplicas=2)

    found = predict_upgrade(old, {**old, "spec": {**old["spec"], "suspend": False}})

    # Two workers, for that is the least that the operator makes, and the head.
    assert (found.effect, found.extra_pods) == ("new-cluster", 3)
    assert predict_upgrade(old, copy.deepcopy(old)).effect == "none"


def test_an_old_cluster_that_goes_at_once_costs_no_delay() -> None:
    old = service()
    old["spec"]["rayClusterDeletionDelaySeconds"] = 0
    new = copy.deepcopy(old)
    ray(new).update(image="squadron:0.2.0")

    assert "deletion delay 0 s" in predict_upgrade(old, new).duration
