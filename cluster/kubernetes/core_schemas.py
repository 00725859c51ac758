"""Kubernetes' own kinds against its published schemas, at the versions one may meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from cluster.kubernetes.finding import Document, Finding
from cluster.kubernetes.pods.templates import pods_of

VERSIONS = ("1.31", "1.34", "1.37")
"""Oldest, middle and newest that the manifests claim. `preStop.sleep` exists from 1.29,
`volumes[].image` from 1.31: an older API server drops both without a word."""


_OWN_GROUPS = frozenset(
    {
        "",
        "apps",
        "autoscaling",
        "batch",
        "extensions",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "scheduling.k8s.io",
        "storage.k8s.io",
    }
)


def is_available() -> bool:
    """Whether the schemas are installed (package kubernetes-validate)."""
    return find_spec("kubernetes_validate") is not None


def check_core(
    documents: Sequence[Document], versions: Sequence[str] = VERSIONS
) -> tuple[list[Finding], list[str]]:
    """Findings, and the kinds ("apiVersion Kind") for which there is no schema: those are not
    checked here, and a caller should say so.

    Every pod template counts as a Pod, those inside a RayService too: its own schema is looser.
    """
    import kubernetes_validate

    found: dict[tuple[str, str], Finding] = {}
    unknown: set[str] = set()
    for version in versions:
        for document, prefix in _objects(documents):
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.SchemaNotFoundError:
                told = f"{document.get('apiVersion')} {document.get('kind')}"
                if _is_kubernetes_own(str(document.get("apiVersion", ""))):
                    found.setdefault((told, ""), _withdrawn(document, told, version))
                else:
                    unknown.add(told)
            except kubernetes_validate.ValidationError as error:
                path = prefix + "".join(f"/{part}" for part in error.path)
                name = f"{document.get('kind')} {_name(document)}".strip()
                found.setdefault(
                    (path, error.message),
                    Finding(
                        rule="core-schema",
                        path=path,
                        message=f"{name}, Kubernetes {version}: {error.message[:300]}",
                    ),
                )
    return list(found.values()), sorted(unknown)


def _is_kubernetes_own(api_version: str) -> bool:
    """Other groups, Gateway's among them, come with CRDs."""
    group = api_version.rpartition("/")[0]
    return group in _OWN_GROUPS


def _withdrawn(document: Document, told: str, version: str) -> Finding:
    return Finding(
        rule="core-schema",
        path="/apiVersion",
        message=f"{told} {_name(document)!r}: Kubernetes {version} knows no such kind; allowed: "
        "the version that it has now (`kubectl api-resources`), as policy/v1 or autoscaling/v2",
    )


def _objects(documents: Sequence[Document]) -> Iterator[tuple[Document, str]]:
    """Each object with the path that findings in it begin with."""
    for document in documents:
        if document.get("kind") != "RayService":
            yield document, ""
    for pod in pods_of([each for each in documents if each.get("kind") == "RayService"]):
        made: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "pod"},
            "spec": pod.spec,
        }
        yield made, pod.path.removesuffix("/spec")


def _name(document: Document) -> str:
    return str((document.get("metadata") or {}).get("name", ""))
