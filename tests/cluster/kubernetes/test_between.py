"""What one object says of another: names, ports, labels, namespaces, claims."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ConfigError
from cluster.kubernetes.between.needed import needed
from cluster.kubernetes.checks import check_documents
from cluster.kubernetes.finding import Document, services_in
from cluster.kubernetes.pods.labels import selects
from tests.cluster.kubernetes.change import cluster, head_pod, pod, state
from tests.cluster.kubernetes.manifests import ROOT, built, overlaid

Documents = Sequence[Document]
NAME = "app.kubernetes.io/name"
PARTS = ("api-keys", "tls-gateway", "logging", "secrets")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], list[Document]]:
    """GKE's overlay with every component that fits it, fresh for each test."""
    folder = tmp_path_factory.mktemp("whole")
    components = [ROOT / "k8s/components" / each for each in PARTS]

    try:
        found = overlaid(folder, ROOT / "k8s/overlays/gke", *components)
    except ConfigError as error:
        if error.details.get("key") != "PATH":
            raise
        pytest.skip(error.message)
    return lambda: copy.deepcopy(found)


def one(documents: Documents, kind: str, name: str = "squadron") -> Any:
    return next(
        each for each in documents if (each["kind"], each["metadata"]["name"]) == (kind, name)
    )


def service(documents: Documents) -> Document:
    return services_in(list(documents))[0]


def volumes(documents: Documents, field: str) -> Iterator[Any]:
    for spec in (head_pod(service(documents)), pod(service(documents))):
        yield from (each[field] for each in spec["volumes"] if field in each)


def options(documents: Documents) -> Any:
    return cluster(service(documents))["gcsFaultToleranceOptions"]


def redis(documents: Documents) -> Any:
    return one(documents, "StatefulSet", "squadron-redis")["spec"]


def doors(documents: Documents) -> Any:
    return one(documents, "Service", "squadron-doors")["spec"]


def ingress(documents: Documents, index: int, name: str = "squadron") -> Any:
    return one(documents, "NetworkPolicy", name)["spec"]["ingress"][index]


def budget(documents: Documents) -> Any:
    return one(documents, "PodDisruptionBudget", "squadron-workers")


def scrapes(documents: Documents) -> Any:
    return one(documents, "PodMonitor")["spec"]["podMetricsEndpoints"][0]


def claim(documents: Documents) -> Any:
    return one(documents, "PersistentVolumeClaim", "squadron-models")["spec"]


MISTAKES: dict[str, tuple[Callable[[list[Document]], object], str]] = {
    "a claim's name": (
        lambda d: next(volumes(d, "persistentVolumeClaim")).update(claimName="squadron-model"),
        "name-misspelt",
    ),
    "a ConfigMap's name": (
        lambda d: next(volumes(d, "configMap")).update(name="squadron-fluentbit"),
        "name-misspelt",
    ),
    "a Secret's name in one of two groups, the second's": (
        lambda d: list(volumes(d, "secret"))[1].update(secretName="squadron-api-key"),
        "name-misspelt",
    ),
    "the state's address": (
        lambda d: options(d).update(redisAddress="redis://redis:6379"),
        "state-address",
    ),
    "the state's port": (
        lambda d: options(d).update(redisAddress="redis://squadron-redis:6380"),
        "state-address",
    ),
    "no address": (lambda d: options(d).pop("redisAddress"), "state-address"),
    "the password's Secret": (
        lambda d: options(d)["redisPassword"]["valueFrom"]["secretKeyRef"].update(name="redis"),
        "state-password",
    ),
    "the password's key": (
        lambda d: options(d)["redisPassword"]["valueFrom"]["secretKeyRef"].update(key="pass"),
        "state-password",
    ),
    "no password": (lambda d: options(d).pop("redisPassword"), "state-password"),
    "the Service of the state": (
        lambda d: one(d, "Service", "squadron-redis")["spec"]["selector"].update({NAME: "redis"}),
        "service-selector",
    ),
    "a workload's own pods": (
        lambda d: redis(d)["selector"]["matchLabels"].update({NAME: "redis"}),
        "workload-selector",
    ),
    "the Service of the doors": (
        lambda d: doors(d)["selector"].update({"squadron.dev/role": "workers"}),
        "service-selector",
    ),
    "the port behind a Service": (
        lambda d: doors(d)["ports"][0].update(targetPort=8090),
        "service-target",
    ),
    "two doors for each other": (
        lambda d: [each.update(targetPort=16001 - each["port"]) for each in doors(d)["ports"]],
        "route-protocol",
    ),
    "a route's Service": (
        lambda d: one(d, "HTTPRoute")["spec"]["rules"][0]["backendRefs"][0].update(
            name="squadron-door"
        ),
        "route-backend",
    ),
    "a route's Gateway": (
        lambda d: one(d, "HTTPRoute")["spec"]["parentRefs"][0].update(name="squadrn"),
        "route-parent",
    ),
    "a route's listener": (
        lambda d: one(d, "HTTPRoute")["spec"]["parentRefs"][0].update(sectionName="http"),
        "route-parent",
    ),
    "a monitor's pods": (
        lambda d: one(d, "PodMonitor")["spec"]["selector"]["matchLabels"].update({NAME: "x"}),
        "selector",
    ),
    "a monitor's port": (lambda d: scrapes(d).update(port="door-metric"), "monitor-target"),
    "a monitor's path": (lambda d: scrapes(d).update(path="/metric"), "monitor-target"),
    "Ray's own pods": (lambda d: one(d, "NetworkPolicy")["spec"]["ingress"].pop(0), "ray-shut-out"),
    "Ray's own pods, by label": (
        lambda d: ingress(d, 0)["from"][0]["podSelector"]["matchLabels"].update({NAME: "squadrn"}),
        "ray-shut-out",
    ),
    "Ray's own pods, by some ports": (
        lambda d: ingress(d, 0).update(ports=[{"port": 6379}]),
        "ray-shut-out",
    ),
    "nothing goes out": (
        lambda d: one(d, "NetworkPolicy")["spec"].update(policyTypes=["Ingress", "Egress"]),
        "ray-shut-out",
    ),
    "no names are found": (
        lambda d: one(d, "NetworkPolicy")["spec"].update(
            policyTypes=["Ingress", "Egress"],
            egress=[{"ports": [{"port": 6379, "endPort": 65535}]}],
        ),
        "ray-shut-out",
    ),
    "Redis' callers": (
        lambda d: ingress(d, 0, "squadron-redis")["from"][0]["podSelector"]["matchLabels"].update(
            {NAME: "x"}
        ),
        "state-shut-out",
    ),
    "Redis' port": (
        lambda d: ingress(d, 0, "squadron-redis")["ports"][0].update(port=6380),
        "state-shut-out",
    ),
    "clients": (lambda d: one(d, "NetworkPolicy")["spec"]["ingress"].pop(1), "doors-shut"),
    "the clients' port": (lambda d: ingress(d, 1)["ports"][0].update(port=80), "doors-shut"),
    "a claim of one node": (
        lambda d: claim(d).update(accessModes=["ReadWriteOnce"]),
        "claim-modes",
    ),
    "a claim of one pod": (
        lambda d: claim(d).update(accessModes=["ReadWriteOncePod"]),
        "claim-modes",
    ),
    "a claim's size": (
        lambda d: claim(d)["resources"]["requests"].update(storage="50GB"),
        "claim-size",
    ),
    "a claim in thousandths of a byte": (
        lambda d: claim(d)["resources"]["requests"].update(storage="50m"),
        "claim-size",
    ),
    "a budget by an expression": (
        lambda d: budget(d)["spec"].update(
            minAvailable=2,
            selector={"matchExpressions": [{"key": "squadron.dev/role", "operator": "Exists"}]},
        ),
        "",  # the head counts as well: 2 of 3
    ),
    "a budget by an expression that blocks": (
        lambda d: budget(d)["spec"].update(
            minAvailable=3,
            selector={"matchExpressions": [{"key": "squadron.dev/role", "operator": "Exists"}]},
        ),
        "budget-blocks",
    ),
    "a budget of everything": (
        lambda d: budget(d)["spec"].update(minAvailable=3, selector={}),
        "budget-blocks",
    ),
    "two budgets": (
        lambda d: d.append(
            {**budget(d), "metadata": {"name": "again", "namespace": "squadron"}},
        ),
        "budget-twice",
    ),
    "no namespace": (
        lambda d: one(d, "NetworkPolicy")["metadata"].pop("namespace"),
        "namespace",
    ),
    "another namespace": (
        lambda d: one(d, "PersistentVolumeClaim", "squadron-models")["metadata"].update(
            namespace="default"
        ),
        "namespace",
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_slip_between_two_objects_is_found(
    what: str, whole: Callable[[], list[Document]]
) -> None:
    documents = whole()
    change, rule = MISTAKES[what]
    change(documents)

    found = check_documents(documents, [])

    assert {each.rule for each in found} == ({rule} if rule else set()), found


def test_all_components_together_hold_no_slip(whole: Callable[[], list[Document]]) -> None:
    assert check_documents(whole(), []) == []


def test_a_password_of_the_state_in_plain_text_is_found() -> None:
    documents = built(ROOT / "k8s/base")
    state(service(documents), redisAddress="r:6379", redisPassword={"value": "hunter2"})

    (found,) = check_documents(documents, [])

    assert found.rule == "inline-secret"
    assert "hunter2" not in found.message


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (
            "PersistentVolume",
            {"claimRef": {"namespace": "default", "name": "squadron-node-models"}},
        ),
        ("PersistentVolume", {"claimRef": {"namespace": "squadron", "name": "other"}}),
        ("PersistentVolumeClaim", {"volumeName": "other"}),
        ("PersistentVolumeClaim", {"resources": {"requests": {"storage": "11Gi"}}}),
        ("PersistentVolumeClaim", {"accessModes": ["ReadWriteMany"]}),
        ("PersistentVolumeClaim", {"storageClassName": "standard"}),
    ],
)
def test_a_claim_that_its_volume_does_not_fit_is_found(kind: str, change: Document) -> None:
    documents = built(ROOT / "k8s/overlays/dev-cpu")
    one(documents, kind, "squadron-node-models")["spec"].update(change)

    assert [each.rule for each in check_documents(documents, [])] == ["claim-volume"]


def test_what_must_be_there_already_is_told(whole: Callable[[], list[Document]]) -> None:
    assert needed(whole()) == [
        "Secret squadron-api-keys",
        "Secret squadron-metrics-key (key)",
        "Secret squadron-ray-token (auth_token)",
        "Secret squadron-redis (password)",
        "Secret squadron-secrets",
        "Secret squadron-tls",
    ]
    assert "PersistentVolumeClaim squadron-models" in needed(built(ROOT / "k8s/overlays/prod-gpu"))


def test_a_route_of_somebody_elses_gateway_and_service_is_nobodys_slip(
    whole: Callable[[], list[Document]],
) -> None:
    documents = whole()
    documents.append(
        {
            "kind": "HTTPRoute",
            "metadata": {"name": "more", "namespace": "squadron"},
            "spec": {
                "parentRefs": [{"name": "public", "namespace": "gateways"}, {"name": "shared"}],
                "rules": [{"backendRefs": [{"name": "payments", "port": 80}]}],
            },
        }
    )

    assert check_documents(documents, []) == []


@pytest.mark.parametrize(
    ("selector", "is_meant"),
    [
        ({}, True),
        (None, False),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "1", "b": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_a_selector_means_pods_as_kubernetes_reads_it(selector: Any, is_meant: bool) -> None:
    assert selects(selector, {"a": "1"}) is is_meant


@pytest.mark.parametrize("overlay", ["dev-cpu", "prod-gpu", "prod-multihost", "gke", "eks"])
def test_everything_of_an_overlay_is_in_the_namespace_of_its_pods(overlay: str) -> None:
    """Without it kubectl puts claims, Redis and policies wherever it happens to look."""
    documents = built(Path(ROOT / "k8s/overlays" / overlay))

    elsewhere = [
        each["kind"] for each in documents if each["metadata"].get("namespace") != "squadron"
    ]

    assert set(elsewhere) <= {"Namespace", "PersistentVolume"}
