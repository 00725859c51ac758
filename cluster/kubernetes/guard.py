"""A rule that meets a shape it cannot read says so, and the other rules go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from cluster.kubernetes.finding import Finding

T = TypeVar("T")
UNREADABLE = "unreadable"


def guarded(name: str, rule: Callable[[T], Iterable[Finding]], about: T) -> list[Finding]:
    """What `rule` finds. A list where a map belongs, text where a number does: the schema's layer
    names the field where the CRDs are given, and without them this is all there is to tell."""
    try:
        return list(rule(about))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        return [
            Finding(
                rule=UNREADABLE,
                path="",
                message=f"rule {name} cannot read this manifest ({type(error).__name__}: {error}); "
                "allowed: the shapes of KubeRay's CRD and of core/v1 (--crds names the field)",
            )
        ]
