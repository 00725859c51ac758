"""Claims that pods wait for: volumes that fit them, and pods that may all have them at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cluster.kubernetes.between.needed import CLAIM, name_of
from cluster.kubernetes.finding import Document, Finding, groups_of
from cluster.kubernetes.pods.quantity import ALLOWED, is_quantity, quantity

_MIB = 1 << 20
_OF_ONE_NODE, _OF_ONE_POD = "ReadWriteOnce", "ReadWriteOncePod"


def check_claims(documents: Sequence[Document]) -> Iterator[Finding]:
    """Of one kustomization."""
    volumes = {name_of(each): each for each in documents if each.get("kind") == "PersistentVolume"}
    for claim in documents:
        if claim.get("kind") == CLAIM:
            yield from _size(claim)
            yield from _modes(claim, documents)
            yield from _volume(claim, volumes)


def _size(claim: Document) -> Iterator[Finding]:
    """The field takes any text, and milli-bytes."""
    given = _asked(claim)
    if given is not None and (not is_quantity(given) or quantity(given) < _MIB):
        yield Finding(
            rule="claim-size",
            path="/spec/resources/requests/storage",
            message=f"claim {name_of(claim)!r}: {given!r}; allowed: at least 1Mi ({ALLOWED})",
        )


def _asked(claim: Document) -> object:
    resources = (claim.get("spec") or {}).get("resources") or {}
    return (resources.get("requests") or {}).get("storage")


def _modes(claim: Document, documents: Sequence[Document]) -> Iterator[Finding]:
    """Pods on a second node wait for ever (`Multi-Attach error`). One worker may lie beside the
    head."""
    modes = (claim.get("spec") or {}).get("accessModes") or []
    name = name_of(claim)
    pods = {
        group.name: group.replicas
        for document in documents
        if document.get("kind") in ("RayService", "RayCluster")
        for group in groups_of(document)
        for volume in group.pod.get("volumes") or []
        if (volume.get("persistentVolumeClaim") or {}).get("claimName") == name
    }
    is_one_pods = set(modes) == {_OF_ONE_POD} and sum(pods.values()) > 1
    is_one_nodes = bool(modes) and set(modes) <= {_OF_ONE_NODE, _OF_ONE_POD}
    if is_one_pods or (is_one_nodes and any(number > 1 for number in pods.values())):
        told = ", ".join(f"{number} of {group}" for group, number in pods.items())
        yield Finding(
            rule="claim-modes",
            path="/spec/accessModes",
            message=f"claim {name!r}: {', '.join(modes)}, and up to {told} mount it: those on "
            "other nodes never start; allowed: ReadWriteMany or ReadOnlyMany",
        )


def _volume(claim: Document, volumes: dict[str, Document]) -> Iterator[Finding]:
    """A claim of one volume is bound to it alone, or never."""
    spec, name = claim.get("spec") or {}, name_of(claim)
    chosen = spec.get("volumeName")
    bound = [
        each
        for each, volume in volumes.items()
        if ((volume.get("spec") or {}).get("claimRef") or {}).get("name") == name
    ]
    if chosen is None or (chosen not in volumes and not bound):
        return
    if chosen not in volumes:
        yield _unbound("/spec/volumeName", name, f"volumeName {chosen!r}", ", ".join(bound))
        return
    volume = volumes[chosen].get("spec") or {}
    given = volume.get("claimRef") or {}
    namespace = (claim.get("metadata") or {}).get("namespace", "default")
    if given and (given.get("name"), given.get("namespace")) != (name, namespace):
        mine = f"{given.get('namespace')}/{given.get('name')}"
        yield _unbound("/spec/volumeName", name, f"{chosen!r} is kept for {mine}", f"for {name}")
    for key, its in (
        ("accessModes", volume.get("accessModes") or []),
        ("storageClassName", volume.get("storageClassName")),
    ):
        own = spec.get(key)
        if (set(own or []) - set(its)) if isinstance(its, list) else own != its:
            yield _unbound(f"/spec/{key}", name, f"{key} {own!r}", f"{chosen!r} has {its!r}")
    size, room = _asked(claim), (volume.get("capacity") or {}).get("storage")
    if is_quantity(size) and is_quantity(room) and quantity(size) > quantity(room):
        yield _unbound(
            "/spec/resources/requests/storage", name, str(size), f"at most {room} of {chosen!r}"
        )


def _unbound(path: str, name: str, told: str, allowed: str) -> Finding:
    return Finding(
        rule="claim-volume",
        path=path,
        message=f"claim {name!r}: {told}: it is never bound, and its pods never start; allowed: "
        f"{allowed}",
    )
