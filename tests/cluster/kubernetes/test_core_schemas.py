"""Kubernetes' own schemas over what kustomize builds, pods inside a RayService included."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.kubernetes.core_schemas import check_core
from tests.cluster.kubernetes.manifests import KUSTOMIZATIONS, ROOT, built, service

pytest.importorskip("kubernetes_validate")


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda each: each.name)
def test_the_manifests_are_valid_from_the_oldest_kubernetes_to_the_newest(folder: Path) -> None:
    found, unknown = check_core(built(folder))

    assert found == []
    assert all(not each.startswith(("v1 ", "apps/v1 ")) for each in unknown)


def test_a_field_that_an_old_kubernetes_does_not_know_is_told_with_its_version() -> None:
    manifest = service()
    pod = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    pod["volumes"] = [{"name": "models", "image": {"reference": "models:1"}}]

    old, _ = check_core([manifest], ["1.30"])
    new, _ = check_core([manifest], ["1.31"])

    assert [each.path for each in old] == [
        "/spec/rayClusterConfig/workerGroupSpecs/0/template/spec/volumes/0"
    ]
    assert "Kubernetes 1.30" in old[0].message
    assert "image" in old[0].message
    assert new == []


def test_a_misspelt_field_of_a_core_kind_is_found() -> None:
    documents = [each for each in built(ROOT / "k8s/base") if each["kind"] == "NetworkPolicy"]
    documents[0]["spec"]["ingres"] = []

    found, _ = check_core(documents)

    assert {each.rule for each in found} == {"core-schema"}
    assert "ingres" in found[0].message


def test_a_version_that_kubernetes_has_withdrawn_is_found_and_one_of_a_crd_is_not() -> None:
    old = {"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": {"name": "a"}}
    others = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {}}

    found, unknown = check_core([old, others], ["1.34"])

    assert [each.path for each in found] == ["/apiVersion"]
    assert "policy/v1beta1" in found[0].message
    assert unknown == ["gateway.networking.k8s.io/v1 Gateway"]
