"""The repository's own manifests, as kustomize builds them."""

from __future__ import annotations

import copy
import os
from functools import cache
from pathlib import Path

import pytest
import yaml

from cluster.cli.kubernetes import build, kustomizations
from cluster.errors import ConfigError
from cluster.kubernetes.finding import Document, services_in

ROOT = Path(__file__).parents[3]
KUSTOMIZATIONS = kustomizations(ROOT / "k8s")
COMPONENTS = sorted(each.parent for each in (ROOT / "k8s/components").glob("*/kustomization.yaml"))


@cache
def _built(folder: Path) -> list[Document]:
    return build(folder)


def built(folder: Path) -> list[Document]:
    """A copy that a test may change; skips where nothing can build a kustomization."""
    try:
        return copy.deepcopy(_built(folder))
    except ConfigError as error:
        if error.details.get("key") != "PATH":
            raise
        pytest.skip(error.message)


def service() -> Document:
    (found,) = services_in(built(ROOT / "k8s" / "base"))
    return found


def overlaid(folder: Path, overlay: Path, *components: Path) -> list[Document]:
    """`overlay` with `components`, built by a kustomization in `folder`."""
    both = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(overlay, folder.resolve())],
        "components": [os.path.relpath(each, folder.resolve()) for each in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(both))
    return build(folder)


def tailed(tag: str) -> list[str]:
    """Patterns of the files that the logging sidecar reads under that tag."""
    manifest = yaml.safe_load((ROOT / "k8s/components/logging/fluent-bit.yaml").read_text())
    inputs = yaml.safe_load(manifest["data"]["fluent-bit.yaml"])["pipeline"]["inputs"]
    return [path for each in inputs if each["tag"] == tag for path in each["path"].split(",")]
