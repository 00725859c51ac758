"""The manifests are clean, and each rule finds the mistake that it is there for, and only that."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cluster.cli.kubernetes import read_crds
from cluster.kubernetes.checks import check_documents
from cluster.kubernetes.finding import Document
from tests.cluster.kubernetes.change import (
    arguments,
    autoscaled,
    cluster,
    head_ray,
    incremental,
    pod,
    ray,
    worker,
)
from tests.cluster.kubernetes.manifests import KUSTOMIZATIONS, ROOT, built, service

_HEAD = {"squadron.dev/role": "head"}
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
    route = {"kind": kind, "metadata": {"name": "way", "namespace": "squadron"}}

    assert [each.rule for each in check_documents([manifest, route], [])] == ["route-incremental"]


def test_an_autoscaler_on_rays_own_pods_is_found() -> None:
    scaler = {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "more", "namespace": "squadron"},
        "spec": {"scaleTargetRef": {"kind": "RayCluster", "name": "squadron"}},
    }

    assert [each.rule for each in check_documents([scaler], [])] == ["autoscaler-on-ray"]


def _policy(**rule: object) -> Document:
    """Over all pods, with one rule beside those for Ray's own pods and the operator."""
    own = {"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "squadron"}}}]}
    operator = {"from": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]}
    return {
        "kind": "NetworkPolicy",
        "metadata": {"name": "way", "namespace": "squadron"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [own, operator, rule]},
    }


def _service(kind: str, port: object, of: Mapping[str, str] = _HEAD) -> Document:
    ports = [{"name": "http", "port": 80, "targetPort": port}]
    spec = {"type": kind, "selector": dict(of), "ports": ports}
    return {"kind": "Service", "metadata": {"name": "way", "namespace": "squadron"}, "spec": spec}


def _ingress(name: str, port: object) -> Document:
    backend = {"service": {"name": name, "port": {"number": port}}}
    rules = [{"http": {"paths": [{"path": "/", "backend": backend}]}}]
    return {
        "kind": "Ingress",
        "metadata": {"name": "way", "namespace": "squadron"},
        "spec": {"rules": rules},
    }


def _route(port: int) -> Document:
    to = {"backendRefs": [{"name": "squadron-head-svc", "port": port}]}
    return {
        "kind": "HTTPRoute",
        "metadata": {"name": "way", "namespace": "squadron"},
        "spec": {"rules": [to]},
    }


def test_a_variable_that_switches_ray_s_token_off_is_found() -> None:
    manifest = service()
    ray(manifest)["env"].append({"name": "RAY_AUTH_MODE", "value": "disabled"})

    (found,) = check_documents([manifest], [])

    assert (found.rule, found.severity) == ("token-auth", "error")
    assert "RAY_AUTH_MODE='disabled'" in found.message


def test_doors_on_more_nodes_than_there_can_ever_be_are_found() -> None:
    manifest = service()
    autoscaled(manifest)
    worker(manifest).update(replicas=2, maxReplicas=4)
    arguments(manifest, lambda args: args["server"].update(nodes=5))
    found = [each.message for each in check_documents([manifest], [])]
    arguments(manifest, lambda args: args["server"].update(nodes=4))

    assert ["never more than 4 workers" in each for each in found] == [True]
    assert check_documents([manifest], []) == []


@pytest.mark.parametrize(
    ("ways", "is_found"),
    [
        ([_service("LoadBalancer", "dashboard")], True),
        ([_service("NodePort", 6379)], True),
        ([_service("ClusterIP", 8265)], False),
        ([_service("NodePort", 8265, {"ray.io/node-type": "head"})], True),
        ([_service("NodePort", 8265, {"ray.io/node-type": "worker"})], True),
        ([_service("NodePort", 8265, {"app": "else"})], False),
        ([_service("LoadBalancer", "serve")], False),
        ([_service("ClusterIP", 8265), _ingress("way", 80)], True),
        ([_service("ClusterIP", 8000), _ingress("way", 80)], False),
        ([_ingress("squadron-head-svc", 8265)], True),
        ([_ingress("squadron-serve-svc", 8000)], False),
        ([_route(10001)], True),
        ([_route(8000)], False),
        ([_policy()], True),
        ([_policy(ports=[{"port": 8265}])], True),
        ([_policy(ports=[{"port": 8000, "endPort": 9000}])], True),
        ([_policy(ports=[{"port": 8000}, {"port": 8001}])], False),
        ([_policy(**{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]})], True),
        ([_policy(**{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]})], False),
        ([_policy(**{"from": [{"namespaceSelector": {}}]})], True),
        ([_policy(**{"from": [{"podSelector": {"matchLabels": {"a": "b"}}}]})], False),
    ],
)
def test_a_way_to_ray_s_own_ports_is_found(ways: list[Document], is_found: bool) -> None:
    """Dashboard and jobs run code for whoever gets the token."""
    found = [each.rule for each in check_documents([service(), *ways], [])]

    assert found == ["ray-port-exposed"] * is_found


@pytest.mark.parametrize(
    ("ways", "rules"),
    [
        ([_service("ClusterIP", "htpp")], ["service-target"]),
        ([_service("ClusterIP", "serve")], []),
        ([_service("ClusterIP", 8000), _ingress("way", 8000)], ["route-backend"]),
        ([_service("ClusterIP", 8000), _ingress("other", 8000)], []),
        ([_service("ClusterIP", 8000), _ingress("way", 80)], []),
    ],
)
def test_a_way_that_ends_nowhere_is_found(ways: list[Document], rules: list[str]) -> None:
    assert [each.rule for each in check_documents([service(), *ways], [])] == rules


def test_a_policy_that_shuts_the_operator_out_is_found() -> None:
    documents = built(ROOT / "k8s" / "base")
    for document in documents:
        if document["kind"] == "NetworkPolicy":
            (last,) = (each for each in document["spec"]["ingress"] if "8265" in str(each))
            last["ports"] = [{"port": 8000}]

    (found,) = check_documents(documents, [])

    assert found.rule == "operator-shut-out"
    assert "8265" in found.message


@pytest.mark.parametrize(
    ("variables", "is_found"),
    [
        ({}, True),
        (
            {"env": [{"name": "PG", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]},
            False,
        ),
        ({"envFrom": [{"secretRef": {"name": "a"}}]}, False),
    ],
)
def test_a_secret_that_the_config_names_and_no_pod_has_is_found(
    variables: Document, is_found: bool
) -> None:
    manifest = service()
    url = "postgresql://squadron:${PG}@db/squadron"
    arguments(manifest, lambda args: args["server"].update(state_postgres={"url": url}))
    for container in (head_ray(manifest), ray(manifest)):
        container["env"] += variables.get("env", [])
        container.update({key: each for key, each in variables.items() if key != "env"})

    found = check_documents([manifest], [])

    assert [each.rule for each in found] == ["config-reference"] * 2 * is_found
    assert all("${PG}" in each.message for each in found)


def test_a_probe_must_ask_what_a_door_answers_without_a_key() -> None:
    manifest = service()
    ray(manifest)["livenessProbe"] = {"httpGet": {"path": "/v2", "port": "serve"}}

    (found,) = check_documents([manifest], [])

    assert found.rule == "door-probe"
    assert "/-/healthz" in found.message


def test_the_door_is_on_the_port_that_kuberay_s_probe_asks() -> None:
    manifest = service()
    ray(manifest)["ports"][0]["containerPort"] = 8080

    (found,) = check_documents([manifest], [])

    assert found.rule == "door-port"
    assert "asks 8080" in found.message
