"""The manifests are clean, and each rule finds the mistake that it is there for, and only that."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cluster.cli.kubernetes import read_crds
from cluster.kubernetes.checks import check_documents
from cluster.kubernetes.finding import Document
from tests.cluster.kubernetes.manifests import KUSTOMIZATIONS, ROOT, built, service

CRDS = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared" / "crds"))
needs_crds = pytest.mark.skipif(
    not CRDS.is_dir(), reason="KubeRay's CRDs are not here: KUBERAY_CRDS names their folder"
)


def cluster(manifest: Document) -> Document:
    return manifest["spec"]["rayClusterConfig"]  # type: ignore[no-any-return]


def worker(manifest: Document) -> Document:
    return cluster(manifest)["workerGroupSpecs"][0]  # type: ignore[no-any-return]


def pod(manifest: Document) -> Document:
    return worker(manifest)["template"]["spec"]  # type: ignore[no-any-return]


def ray(manifest: Document) -> Document:
    return pod(manifest)["containers"][0]  # type: ignore[no-any-return]


def set_env(manifest: Document, name: str, value: str) -> None:
    env = [each for each in ray(manifest)["env"] if each["name"] != name]
    ray(manifest)["env"] = [*env, {"name": name, "value": value}]


def need(manifest: Document, **resources: float) -> None:
    config = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    variants = config["applications"][0]["args"]["variants"]
    variants["text-embedder"]["resources"] = resources
    manifest["spec"]["serveConfigV2"] = yaml.safe_dump(config)


def longest(manifest: Document, timeout_s: float) -> None:
    config = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    config["applications"][0]["args"]["server"]["limits"] = {"default_timeout_s": timeout_s}
    manifest["spec"]["serveConfigV2"] = yaml.safe_dump(config)


def misspell(manifest: Document) -> None:
    text = manifest["spec"]["serveConfigV2"]
    manifest["spec"]["serveConfigV2"] = text.replace("replicas:", "replica:", 1)


def incremental(manifest: Document, **options: object) -> None:
    manifest["spec"]["upgradeStrategy"] = {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": {"stepSizePercent": 10, "intervalSeconds": 30, **options},
    }


BROKEN: dict[str, Callable[[Document], object]] = {
    "operator-name": lambda m: m["metadata"].update(name="Squadron"),
    "operator-upgrade-type": lambda m: m["spec"].update(upgradeStrategy={"type": "BlueGreen"}),
    "operator-incremental-autoscaler": incremental,
    "operator-incremental-step": lambda m: (
        cluster(m).update(enableInTreeAutoscaling=True),
        incremental(m, stepSizePercent=90, maxSurgePercent=50),
    ),
    "operator-replicas": lambda m: worker(m).update(minReplicas=3),
    "group-name": lambda m: cluster(m)["workerGroupSpecs"].append(worker(m)),
    "operator-containers": lambda m: cluster(m)["workerGroupSpecs"].append(
        {"groupName": "empty", "maxReplicas": 0, "template": {"spec": {"containers": []}}}
    ),
    "operator-resources-twice": lambda m: worker(m).update(
        rayStartParams={"num-cpus": "4"}, resources={"CPU": "4"}
    ),
    "operator-start-labels": lambda m: worker(m).update(rayStartParams={"labels": "a=b"}),
    "operator-redis-env": lambda m: cluster(m)["headGroupSpec"]["template"]["spec"]["containers"][
        0
    ]["env"].append({"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}),
    "operator-token-auth": lambda m: cluster(m).update(rayVersion="2.40.0"),
    "drain-grace": lambda m: pod(m).update(terminationGracePeriodSeconds=60),
    "drain-too-short": lambda m: set_env(m, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "20"),
    "ray-stop": lambda m: ray(m).update(
        lifecycle={"preStop": {"exec": {"command": ["/bin/sh", "-c", "ray stop"]}}}
    ),
    "ray-version": lambda m: cluster(m).update(rayVersion="", authOptions={"mode": "token"}),
    "one-image": lambda m: ray(m).update(image="squadron:0.2.0"),
    "token-auth": lambda m: cluster(m).update(authOptions={"mode": "disabled"}),
    "inline-secret": lambda m: set_env(m, "HF_TOKEN", "hf_abc"),
    "requests-limits": lambda m: ray(m)["resources"]["requests"].update(memory="1Gi"),
    "memory-limit": lambda m: ray(m)["resources"]["limits"].pop("memory"),
    "serve-proxies": lambda m: m["spec"].update(
        serveConfigV2=m["spec"]["serveConfigV2"].replace("EveryNode", "HeadOnly")
    ),
    "serve-yaml": lambda m: m["spec"].update(serveConfigV2="proxy_location: EveryNode\n"),
    "pod-request-above-limit": lambda m: ray(m)["resources"]["requests"].update(cpu="8"),
    "pod-unknown-volume": lambda m: ray(m)["volumeMounts"].append(
        {"name": "modles", "mountPath": "/m"}
    ),
    "pod-exec-in-pipe": lambda m: ray(m).update(args=["cat a | exec ray start"]),
    "pod-port": lambda m: ray(m)["ports"].append({"containerPort": 80000}),
    "serve-config": misspell,
    "doors": lambda m: worker(m).update(replicas=2, maxReplicas=2),
    "drain-requests": lambda m: longest(m, 120),
    "deletion-delay": lambda m: (m["spec"].update(rayClusterDeletionDelaySeconds=50),),
    "resource-fit": lambda m: need(m, num_gpus=1),
}
ALSO = {
    "ray-version": {"operator-token-auth"},
    "group-name": {"doors"},
    "drain-too-short": {"drain-requests"},
}
"""Without a version the operator refuses token auth as well; a second group has no doors; a
drain of 20 s is short for requests too."""


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda each: each.name)
def test_the_manifests_of_the_repository_are_clean(folder: Path) -> None:
    crds = read_crds(CRDS) if CRDS.is_dir() else []

    assert check_documents(built(folder), crds) == []


@pytest.mark.parametrize("rule", BROKEN)
def test_a_mistake_is_found_by_the_rule_meant_for_it_and_no_other(rule: str) -> None:
    manifest = service()
    BROKEN[rule](manifest)

    found = {each.rule for each in check_documents([manifest], [])}

    assert found - ALSO.get(rule, set()) == {rule}


@needs_crds
@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda m: worker(m).update(maxReplica=3), "maxReplica"),
        (lambda m: worker(m).update(maxReplicas="three"), "three"),
        (lambda m: worker(m).update(maxReplicas=2**40), str(2**40)),
        (lambda m: ray(m)["env"].append({"name": "A", "value": 1}), "1 is not of type"),
        (lambda m: ray(m)["env"].append(ray(m)["env"][0]), "appears twice"),
        (lambda m: m["spec"].update(serveConfigV2={"applications": []}), "is not of type"),
        (lambda m: worker(m).pop("template"), "template"),
    ],
)
def test_the_schema_is_as_strict_as_a_server(
    break_it: Callable[[Document], object], named: str
) -> None:
    manifest = service()
    break_it(manifest)

    (crd,) = (each for each in read_crds(CRDS) if each.kind == "RayService")
    found = crd.check(manifest)

    assert any(named in each.message for each in found), found


def test_a_policy_that_selects_no_pod_is_found() -> None:
    documents = built(ROOT / "k8s" / "base")
    for document in documents:
        if document["kind"] == "PodDisruptionBudget":
            document["spec"]["selector"]["matchLabels"]["squadron.dev/role"] = "wroker"

    assert [each.rule for each in check_documents(documents, [])] == ["selector"]


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        ({"maxUnavailable": 1}, "budget-scale"),
        ({"minAvailable": "50%"}, "budget-scale"),
        ({"minAvailable": 1}, "budget-blocks"),
    ],
)
def test_a_budget_that_lets_no_worker_go_is_found(spec: Document, rule: str) -> None:
    documents = built(ROOT / "k8s" / "base")
    for document in documents:
        if document["kind"] == "PodDisruptionBudget":
            document["spec"].pop("minAvailable")
            document["spec"].update(spec)

    assert [each.rule for each in check_documents(documents, [])] == [rule]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda m: pod(m)["volumes"].append({"name": "a", "hostPath": {"path": "/a"}}),
        lambda m: ray(m).pop("securityContext"),
        lambda m: pod(m)["securityContext"].pop("seccompProfile"),
        lambda m: pod(m)["securityContext"].update(runAsNonRoot=False),
        lambda m: cluster(m).update(enableInTreeAutoscaling=True),
    ],
)
def test_a_pod_that_the_namespace_admits_not_is_found(
    break_it: Callable[[Document], object],
) -> None:
    documents = built(ROOT / "k8s" / "base")
    break_it(next(each for each in documents if each["kind"] == "RayService"))

    assert [each.rule for each in check_documents(documents, [])] == ["pod-restricted"]


def test_a_port_that_is_scraped_and_closed_is_found() -> None:
    documents = built(ROOT / "k8s" / "overlays" / "eks")
    for document in documents:
        if document["kind"] == "NetworkPolicy" and document["metadata"]["name"] == "squadron":
            document["spec"]["ingress"][2]["ports"].pop()

    (found,) = check_documents(documents, [])

    assert found.rule == "monitor-port"
    assert "44227" in found.message


@pytest.mark.parametrize(
    ("http", "grpc", "is_found"),
    [
        ({}, {}, True),
        ({"hostnames": ["a.b"]}, {}, True),
        ({"hostnames": ["a.b"]}, {"hostnames": ["c.b"]}, False),
    ],
)
def test_two_kinds_of_routes_on_one_listener_are_found(
    http: Document, grpc: Document, is_found: bool
) -> None:
    parent = {"parentRefs": [{"name": "squadron", "sectionName": "https"}]}
    routes = [
        {"kind": "HTTPRoute", "metadata": {"name": "a"}, "spec": {**parent, **http}},
        {"kind": "GRPCRoute", "metadata": {"name": "b"}, "spec": {**parent, **grpc}},
    ]

    found = [each.rule for each in check_documents(routes, [])]

    assert found == ["route-shared-listener"] * is_found


@pytest.mark.parametrize("kind", ["Gateway", "HTTPRoute", "Ingress"])
def test_a_way_in_that_an_incremental_upgrade_would_cut_is_found(kind: str) -> None:
    manifest = service()
    cluster(manifest).update(enableInTreeAutoscaling=True, autoscalerOptions={"version": "v2"})
    incremental(manifest, gatewayClassName="any")
    route = {"kind": kind, "metadata": {"name": "way"}}

    assert [each.rule for each in check_documents([manifest, route], [])] == ["route-incremental"]


def test_an_autoscaler_on_rays_own_pods_is_found() -> None:
    scaler = {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "more"},
        "spec": {"scaleTargetRef": {"kind": "RayCluster", "name": "squadron"}},
    }

    assert [each.rule for each in check_documents([scaler], [])] == ["autoscaler-on-ray"]
