"""Each rule alone finds the mistake that it is there for, and none the nearest right form."""

from __future__ import annotations

import ast
import copy
from functools import cache

import pytest

from cluster.cli.kubernetes import serve_schema
from cluster.kubernetes.checks import check_documents
from cluster.kubernetes.finding import Document, Finding
from cluster.kubernetes.operator.feature_gates import parse_gates
from cluster.kubernetes.operator.table import OPERATOR_RULES
from tests.cluster.kubernetes.change import (
    Change,
    Pair,
    cluster,
    gpus,
    head,
    limits,
    pod,
    ray,
    worker,
)
from tests.cluster.kubernetes.manifests import ROOT, service
from tests.cluster.kubernetes.operator_pairs import OPERATOR_PAIRS
from tests.cluster.kubernetes.our_pairs import OUR_PAIRS
from tests.cluster.kubernetes.pod_pairs import POD_PAIRS

PAIRS = {**OPERATOR_PAIRS, **OUR_PAIRS, **POD_PAIRS}
ELSEWHERE = {
    # Of several documents, in test_checks: selectors, budgets, routes, ports, the namespace.
    "selector", "budget-scale", "budget-blocks", "route-incremental", "route-shared-listener",
    "autoscaler-on-ray", "monitor-port", "operator-shut-out",
    "service-target", "route-backend",
    # In test_between.
    "namespace", "name-misspelt", "service-selector", "workload-selector", "monitor-target",
    "route-parent", "route-protocol", "state-address", "state-password", "state-shut-out",
    "ray-shut-out", "doors-shut", "claim-size", "claim-modes", "claim-volume", "budget-twice",
    # Of other schemas, in test_core_schemas.
    "core-schema",
}  # fmt: skip


@cache
def serve_schema_here() -> Document:
    """Serve's own, from the Ray that is installed."""
    found, reason = serve_schema()
    assert found is not None, reason
    return found


def findings(manifest: Document, pair: Pair | None = None) -> list[Finding]:
    gates = parse_gates(pair.gates if pair else "")
    beside = copy.deepcopy(pair.beside) if pair else ()
    return check_documents([manifest, *beside], [], gates=gates, serve_schema=serve_schema_here())


def changed(change: Change) -> Document:
    manifest = service()
    change(manifest)
    return manifest


@pytest.mark.parametrize("rule", PAIRS)
def test_a_mistake_is_found_by_its_rule_and_no_other(rule: str) -> None:
    pair = PAIRS[rule]

    found = findings(changed(pair.bad), pair)

    assert {each.rule for each in found} - pair.also == {rule}, found
    assert all(each.path.startswith("/") and each.message for each in found)


@pytest.mark.parametrize("rule", PAIRS)
def test_the_nearest_right_form_is_found_by_none(rule: str) -> None:
    assert findings(changed(PAIRS[rule].good), PAIRS[rule]) == []


def test_every_rule_has_a_mistake_and_every_mistake_a_rule() -> None:
    assert set(OPERATOR_PAIRS) == {rule.id for rule in OPERATOR_RULES}
    assert len({rule.id for rule in OPERATOR_RULES}) == len(OPERATOR_RULES)
    assert set(OUR_PAIRS) | set(POD_PAIRS) | ELSEWHERE == rules_in_code()


def rules_in_code() -> set[str]:
    """Every rule that the source names, outside the operator's table."""
    found = set()
    for file in (ROOT / "cluster/kubernetes").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            given = [k.value for k in node.keywords if k.arg == "rule"]
            if getattr(node.func, "id", "") in ("_finding", "_repeated", "_warning"):
                given += node.args[:1]
            found |= {each.value for each in given if isinstance(each, ast.Constant)}
    loops = {"pod-duplicate-env", "pod-duplicate-port", "pod-duplicate-mount"}
    return {str(each) for each in found} | loops


@pytest.mark.parametrize("rule", OPERATOR_RULES, ids=lambda each: each.id)
def test_what_the_operator_refuses_says_what_is_allowed_and_who_says_so(rule: object) -> None:
    name = rule.id  # type: ignore[attr-defined]
    pair = PAIRS[name]

    found = [each for each in findings(changed(pair.bad), pair) if each.rule == name]

    for each in found:
        assert "allowed" in each.message, each.message
        assert "KubeRay v1.7.0" in each.source
        assert each.severity == "error"


@pytest.mark.parametrize(
    ("gate", "change", "is_found"),
    [
        ("", lambda m: cluster(m).update(networkPolicy={}), True),
        ("RayClusterNetworkPolicy=true", lambda m: cluster(m).update(networkPolicy={}), False),
        ("RayJobDeletionPolicy=false", lambda m: worker(m).update(suspend=True), True),
        ("RayJobDeletionPolicy=true", lambda m: worker(m).update(suspend=True), False),
    ],
)
def test_a_gated_field_is_refused_where_the_gate_is_off(
    gate: str, change: Change, is_found: bool
) -> None:
    found = findings(changed(change), Pair(bad=change, gates=gate))

    assert [each.rule for each in found] == ["operator-gate"] * is_found


@pytest.mark.parametrize("text", ["8Gi", "8192Mi", "8589934592", "8388608Ki"])
def test_the_same_memory_in_other_words_is_the_same(text: str) -> None:
    manifest = service()
    limits(manifest, memory="8Gi")
    ray(manifest)["resources"]["requests"]["memory"] = text

    assert findings(manifest) == []


@pytest.mark.parametrize(
    ("name", "value", "is_one"),
    [
        ("HF_TOKEN", "abc", True),
        ("DATABASE", "postgresql://me:hunter2@db/x", True),
        ("NOTE", "sk-abcdefghijklmnopqrstuvwx", True),
        ("AWS_SECRET_ACCESS_KEY", "abc", True),
        ("MAX_TOKENS", "100", False),
        ("RAY_AUTH_TOKEN_PATH", "token.txt", False),
        ("DATABASE", "postgresql://db/x", False),
        ("HF_TOKEN", "", False),
    ],
)
def test_a_secret_is_known_by_its_name_or_by_its_form(name: str, value: str, is_one: bool) -> None:
    manifest = service()
    ray(manifest)["env"].append({"name": name, "value": value})

    found = findings(manifest)

    assert [each.rule for each in found] == ["inline-secret"] * is_one
    assert all(value not in each.message for each in found)


def test_a_field_of_another_shape_stops_no_other_rule() -> None:
    manifest = service()
    ray(manifest)["env"] = "HF_TOKEN=abc"
    worker(manifest)["minReplicas"] = 9

    rules = {each.rule for each in findings(manifest)}

    assert {"unreadable", "operator-replicas"} <= rules


def test_no_key_of_the_manifest_may_be_of_any_shape_and_break_the_check() -> None:
    """Every map, list and value of the cluster in turn as text, number, list and nothing."""
    whole = service()
    whole["spec"]["serveConfigV2"] = "applications: [{name: a, import_path: 'a:b'}]"
    places = list(_places(whole["spec"]["rayClusterConfig"], ()))
    assert len(places) > 100

    for place in places:
        for wrong in ("text", 7, [], [1], {}, None):
            manifest = copy.deepcopy(whole)
            at = manifest["spec"]["rayClusterConfig"]
            for key in place[:-1]:
                at = at[key]
            at[place[-1]] = wrong
            check_documents([manifest], [])


def _places(value: object, at: tuple[object, ...]) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    entries: list[tuple[object, object]] = []
    if isinstance(value, dict):
        entries = list(value.items())
    if isinstance(value, list):
        entries = list(enumerate(value))
    for key, each in entries:
        found += [(*at, key), *_places(each, (*at, key))]
    return found


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (lambda m: limits(m, memory="8192m"), ["pod-resource"] * 2),
        (lambda m: limits(m, memory="8"), ["pod-resource"] * 2),
        (lambda m: limits(m, cpu="4Gi"), ["pod-resource"] * 2),
        (lambda m: limits(m, **{"nvidia/gpu": "1"}), ["pod-resource"] * 2),
        (lambda m: limits(m, gpu="1"), ["pod-resource"] * 2),
        (lambda m: gpus(m, "0.5"), ["pod-resource"]),
        (lambda m: pod(m)["containers"][0].update(name="ray_worker"), ["pod-name"]),
        (lambda m: worker(m)["template"]["metadata"]["labels"].update(team="a b"), ["pod-name"]),
        (lambda m: _head_started(m, port="6380"), ["start-port"]),
        (lambda m: _head_started(m, **{"dashboard-host": "127.0.0.1"}), ["start-port"]),
        (lambda m: _started(m, **{"metrics-export-port": "9999"}), ["start-port"]),
        (
            lambda m: _started(m, **{"min-worker-port": "7000", "max-worker-port": "8001"}),
            ["start-port"],
        ),
        (lambda m: _started(m, **{"min-worker-port": "9000", "max-worker-port": "9999"}), []),
    ],
)
def test_units_names_and_ports_that_cannot_be_meant_are_found(
    change: Change, rules: list[str]
) -> None:
    # Where a worker has next to no memory, nothing fits into it either.
    found = [each for each in findings(changed(change)) if each.rule != "resource-fit"]

    assert [each.rule for each in found] == rules
    assert all("allowed" in each.message or "Allowed" in each.message for each in found)


def _started(manifest: Document, **parameters: str) -> None:
    worker(manifest)["rayStartParams"].update(parameters)


def _head_started(manifest: Document, **parameters: str) -> None:
    head(manifest)["rayStartParams"].update(parameters)
