"""Every component on every overlay: what it builds is as clean as without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from cluster.cli.kubernetes import build, read_crds
from cluster.errors import ConfigError
from cluster.kubernetes.checks import check_documents
from cluster.kubernetes.core_schemas import check_core, is_available
from cluster.kubernetes.finding import services_in
from tests.cluster.kubernetes.manifests import COMPONENTS, KUSTOMIZATIONS, ROOT, built

CRDS = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared" / "crds"))
EXCLUDED = {
    # The overlays have them already.
    *((overlay, each) for overlay in ("gke", "eks") for each in ("gcs-ft-redis", "monitoring")),
    *((overlay, "model-cache-pvc") for overlay in ("gke", "eks")),
    *((overlay, "gcs-ft-rocksdb") for overlay in ("gke", "eks")),
}
PAIRS = [
    (overlay, component)
    for overlay in KUSTOMIZATIONS
    for component in COMPONENTS
    if (overlay.name, component.name) not in EXCLUDED
]


@pytest.mark.parametrize(
    ("overlay", "component"), PAIRS, ids=[f"{each.name}+{other.name}" for each, other in PAIRS]
)
def test_a_component_builds_cleanly_on_an_overlay(
    overlay: Path, component: Path, tmp_path: Path
) -> None:
    built(overlay)  # skips where nothing can build
    both = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(overlay, tmp_path.resolve())],
        "components": [os.path.relpath(component, tmp_path.resolve())],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(both))

    documents = build(tmp_path)

    crds = read_crds(CRDS) if CRDS.is_dir() else []
    assert check_documents(documents, crds) == []
    if is_available():
        assert check_core(documents, ["1.31"])[0] == []
    before, after = services_in(built(overlay)), services_in(documents)
    names = {(each["kind"], each["metadata"]["name"]) for each in documents}
    assert before != after or len(names) > len(built(overlay)), "the component changes nothing"


def test_a_gateway_of_ones_own_and_an_incremental_upgrade_exclude_each_other(
    tmp_path: Path,
) -> None:
    parts = ("tls-gateway", "incremental-upgrade")
    both = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(ROOT / "k8s/base", tmp_path.resolve())],
        "components": [
            os.path.relpath(ROOT / "k8s/components" / each, tmp_path.resolve()) for each in parts
        ],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(both))
    try:
        documents = build(tmp_path)
    except ConfigError as error:
        if error.details.get("key") != "PATH":
            raise
        pytest.skip(error.message)

    rules = {each.rule for each in check_documents(documents, [])}

    assert rules == {"route-incremental"}


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda each: each.name)
def test_a_component_says_what_it_is_and_what_it_costs(component: Path) -> None:
    said = (component / "kustomization.yaml").read_text()

    assert said.startswith("# What: ")
    assert "# Why: " in said
    assert "Cost: " in said
