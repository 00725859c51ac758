"""Rules in CEL, as an API server asks them."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.cli.kubernetes import read_crds
from cluster.kubernetes.cel_rules import broken_by_change, broken_rules
from cluster.kubernetes.checks import check_documents
from cluster.kubernetes.finding import Finding
from tests.cluster.kubernetes.manifests import service
from tests.cluster.kubernetes.test_checks import CRDS, needs_crds


def schema(rule: str, **more: Any) -> dict[str, Any]:
    limited = {"x-kubernetes-validations": [{"rule": rule, "message": "no"}], **more}
    return {"properties": {"items": {"items": {"properties": {"size": limited}}}, "size": limited}}


def broken(path: str) -> list[Finding]:
    return [Finding(rule="crd-cel", path=path, message="no")]


def test_a_rule_is_asked_wherever_its_field_is() -> None:
    limit = schema("self < 3")

    assert list(broken_rules({"size": 2, "items": [{"size": 1}]}, limit)) == []
    assert list(broken_rules({"size": 3}, limit)) == broken("/size")
    assert list(broken_rules({"items": [{"size": 1}, {"size": 9}]}, limit)) == broken(
        "/items/1/size"
    )


def test_a_rule_about_a_change_is_asked_of_changes_only() -> None:
    fixed = schema("self == oldSelf")

    assert list(broken_rules({"size": 1}, fixed)) == []
    assert list(broken_by_change({"size": 1}, {"size": 1}, fixed)) == []
    assert list(broken_by_change({"size": 1}, {"size": 2}, fixed)) == broken("/size")
    assert list(broken_by_change({}, {"size": 2}, fixed)) == []


def test_a_rule_that_cannot_be_evaluated_counts_as_broken_and_says_so() -> None:
    (found,) = broken_rules({"size": 1}, schema("isQuantity(self)"))

    assert "cannot be evaluated here" in found.message


@needs_crds
@pytest.mark.parametrize("place", ["spec", "cluster"])
def test_kuberays_own_rule_finds_its_mistake_and_nothing_else_does(place: str) -> None:
    manifest = service()
    at = manifest["spec"] if place == "spec" else manifest["spec"]["rayClusterConfig"]
    at["managedBy"] = "somebody"

    found = check_documents([manifest], read_crds(CRDS))

    assert {each.rule for each in found} == {"crd-cel"}
