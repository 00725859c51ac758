"""Alerts are tested by promtool, and name no metric that nobody exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest
import yaml
from prometheus_client import CollectorRegistry

from cluster.cli.programs import where_is
from cluster.observability.device_metrics import device_names
from cluster.observability.door_metrics import Denial, Refusal
from cluster.observability.language_metrics import declare_language_metrics
from cluster.observability.metrics import ScalingSource, declared, declared_names
from tests.cluster.kubernetes.manifests import ROOT

MONITORING = ROOT / "k8s/components/monitoring"
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
NOT_OURS = {
    "ray_node_mem_used",  # Ray's own, port 8080 of every node
    "ray_node_mem_total",
    "ray_gcs_actors_count",  # Ray's own, of the GCS
    "kuberay_service_condition_ready",  # KubeRay 1.7's operator
    "kube_pod_status_phase",  # kube-state-metrics, which every Prometheus stack brings
    "kube_pod_container_status_restarts_total",
}
_METRIC = re.compile(r"\b(?:squadron|nv|ray|kuberay|kube)_[a-z_]+\b")
PROMTOOL = where_is("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None,
    reason="promtool is not here: `make .venv/bin/promtool` fetches Debian's",
)


def rules() -> list[dict[str, object]]:
    manifest = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    return [rule for group in manifest["spec"]["groups"] for rule in group["rules"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The rules as promtool reads them; what people read is compared elsewhere."""
    plain = [{k: v for k, v in rule.items() if k != "annotations"} for rule in rules()]
    groups = {"groups": [{"name": "squadron", "rules": plain}]}
    (tmp_path / "rules.groups.yaml").write_text(yaml.safe_dump(groups))
    shutil.copy(MONITORING / "rules.test.yaml", tmp_path)
    return tmp_path


@needs_promtool
@pytest.mark.parametrize("command", [("check", "rules.groups.yaml"), ("test", "rules.test.yaml")])
def test_promtool_finds_the_rules_right(folder: Path, command: tuple[str, str]) -> None:
    what, file = command
    done = subprocess.run(
        [str(PROMTOOL), what, "rules", file],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_finds_every_name_of_ours_right() -> None:
    """A scrape holds the families that were counted already: a failure, say, only after one."""
    ends = {
        "counter": ("_total 1",),
        "gauge": (" 1",),
        "histogram": ('_bucket{le="+Inf"} 1', "_sum 1", "_count 1"),
    }
    page = ""
    for family in declared().collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        page += f"# HELP {name} {family.documentation}\n# TYPE {name} {family.type}\n"
        page += "".join(f"{family.name}{end}\n" for end in ends[family.type])
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )

    told = (done.stdout + done.stderr).splitlines()
    # Triton's names are Triton's.
    assert [line for line in told if line and not line.startswith("nv_")] == []
    assert page.count("# TYPE squadron_") > 20


def test_every_alert_is_seen_firing_and_quiet_and_has_a_runbook_line() -> None:
    tests = yaml.safe_load((MONITORING / "rules.test.yaml").read_text())["tests"]
    seen = {
        (test["alert_rule_test"][0]["alertname"], bool(test["alert_rule_test"][0]["exp_alerts"]))
        for test in tests
    }

    assert seen == {(rule["alert"], fires) for rule in rules() for fires in (True, False)}
    for rule in rules():
        said = rule["annotations"]
        assert isinstance(said, dict)
        assert said["summary"]
        assert len(said["runbook"]) > 40


def test_the_series_of_the_tests_have_labels_that_are_really_given() -> None:
    given = {
        "squadron_door_refused_total": ("reason", set(get_args(Refusal))),
        "squadron_door_denied_total": ("reason", set(get_args(Denial))),
        "squadron_autoscaling_changes_total": ("source", set(get_args(ScalingSource))),
    }
    seen = set()
    for test in yaml.safe_load((MONITORING / "rules.test.yaml").read_text())["tests"]:
        for each in test["input_series"]:
            metric, _, labels = each["series"].partition("{")
            if metric in given:
                label, allowed = given[metric]
                assert re.findall(rf'{label}="(\w+)"', labels)[0] in allowed, each["series"]
                seen.add(metric)

    assert seen == set(given)


def expressions() -> list[str]:
    found = [str(rule["expr"]) for rule in rules()]
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            found += [target["expr"] for target in panel["targets"]]
    return found


def test_every_metric_of_alerts_and_dashboards_is_exported() -> None:
    exported = declared_names() | {
        name
        for family in _language_registry().collect()
        for name in (family.name, f"{family.name}_total", f"{family.name}_bucket")
    }
    used = {name for each in expressions() for name in _METRIC.findall(each)}

    assert used - exported - NOT_OURS == set()


OF_OTHERS = {
    "pod",
    "namespace",
    "instance",
    "node",
    "container",
    "phase",
    "name",
    "condition",
    "IsHeadNode",
}
"""Labels that Prometheus, KubeRay, Kubernetes and Ray give."""
_GROUPED = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_MATCHED = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")


@pytest.mark.parametrize("each", sorted(set(expressions())))
def test_an_expression_groups_and_matches_by_labels_that_its_metrics_have(each: str) -> None:
    """By another one it is right in syntax, and an empty panel or an alert that never fires."""
    has = {
        f"{collector._name}{end}": {*collector._labelnames, *({"le"} if end == "_bucket" else ())}
        for registry in (declared(), _language_registry())
        for collector in registry._collector_to_names
        for end in ("", "_total", "_bucket", "_sum", "_count")
    } | {name: {"gpu_uuid", "gpu", "source"} for name in device_names()}

    used = {name for group in _GROUPED.findall(each) for name in re.findall(r"\w+", group)}
    used |= {name for part in re.findall(r"\{([^}]*)\}", each) for name in _MATCHED.findall(part)}
    known = {label for metric in _METRIC.findall(each) for label in has.get(metric, set())}

    assert used - known - OF_OTHERS == set()


@needs_promtool
def test_promtool_reads_every_expression(tmp_path: Path) -> None:
    """Of dashboards as well, with what Grafana puts in for its own variables."""
    plain = [each.replace("$__rate_interval", "5m") for each in expressions()]
    recorded = [{"record": f"r:{number}", "expr": expr} for number, expr in enumerate(plain)]
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": recorded}]}))
    command = [str(PROMTOOL), "check", "rules", str(file)]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(plain)} rules found" in done.stdout + done.stderr


def _language_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    declare_language_metrics(registry)
    return registry


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda each: each.stem)
def test_a_dashboard_has_panels_with_units_and_one_id(file: Path) -> None:
    dashboard = json.loads(file.read_text())

    assert dashboard["uid"] == f"squadron-{file.stem}"
    assert len(dashboard["panels"]) >= 5
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
