"""The manifests are clean, and each rule finds the mistake that it is there for, and only that."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.cli.kubernetes import read_crds
from cluster.kubernetes.checks import check_documents
from cluster.kubernetes.finding import Document
from tests.cluster.kubernetes.change import cluster, incremental, pod, ray, worker
from tests.cluster.kubernetes.manifests import KUSTOMIZATIONS, ROOT, built, service

CRDS = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared" / "crds"))
needs_crds = pytest.mark.skipif(
    not CRDS.is_dir(), reason="KubeRay's CRDs are not here: KUBERAY_CRDS names their folder"
)


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda each: each.name)
def test_the_manifests_of_the_repository_are_clean(folder: Path) -> None:
    crds = read_crds(CRDS) if CRDS.is_dir() else []

    assert check_documents(built(folder), crds) == []


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
    incremental(manifest)
    route = {"kind": kind, "metadata": {"name": "way"}}

    assert [each.rule for each in check_documents([manifest, route], [])] == ["route-incremental"]


def test_an_autoscaler_on_rays_own_pods_is_found() -> None:
    scaler = {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "more"},
        "spec": {"scaleTargetRef": {"kind": "RayCluster", "name": "squadron"}},
    }

    assert [each.rule for each in check_documents([scaler], [])] == ["autoscaler-on-ray"]
