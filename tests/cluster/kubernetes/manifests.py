"""The repository's own manifests, as kustomize builds them."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pytest

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
