"""What a server refuses in a pod, letter for letter: inside a RayService nobody reads it until the
operator asks for the pod, which then never comes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cluster.kubernetes.finding import Document, Finding
from cluster.kubernetes.pods.labels import selects
from cluster.kubernetes.pods.quantity import is_quantity, quantity
from cluster.kubernetes.pods.templates import PodTemplate

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PORT = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_PROBES = ("readinessProbe", "livenessProbe", "startupProbe")
_WAYS = ("exec", "httpGet", "tcpSocket", "grpc")
_NATIVE = ("cpu", "memory", "ephemeral-storage")
_GPU = "nvidia.com/gpu"
_MIB = 1 << 20
_MOST_CPUS = 1000


def names(pod: PodTemplate) -> Iterator[Finding]:
    """Source: Kubernetes, "Object Names and IDs", ContainerPort, "Labels and Selectors"."""
    for path, container in pod.containers():
        if not _LABEL.fullmatch(str(container.get("name", ""))):
            yield _name(f"{path}/name", container.get("name"), "63 of a-z, 0-9 and '-'")
        for index, port in enumerate(container.get("ports") or []):
            if port.get("name") is not None and not _PORT.fullmatch(str(port["name"])):
                at = f"{path}/ports/{index}/name"
                yield _name(at, port["name"], "15 of a-z, 0-9 and '-', a letter among them")
    for index, volume in enumerate(pod.spec.get("volumes") or []):
        if not _LABEL.fullmatch(str(volume.get("name", ""))):
            at = f"{pod.path}/volumes/{index}/name"
            yield _name(at, volume.get("name"), "63 of a-z, 0-9 and '-'")
    for key, value in pod.labels.items():
        if not _VALUE.fullmatch(str(value)):
            at = f"{pod.path.removesuffix('/spec')}/metadata/labels"
            yield _name(at, f"{key}: {value}", "63 letters, digits, '-', '_' and '.'")


def _name(path: str, name: object, allowed: str) -> Finding:
    return Finding(
        rule="pod-name",
        path=path,
        message=f"{name!r} is refused by a server; allowed: at most {allowed}",
    )


def variables(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        for index, each in enumerate(container.get("env") or []):
            if each.get("value") and each.get("valueFrom"):
                yield Finding(
                    rule="pod-env",
                    path=f"{path}/env/{index}",
                    message=f"{each.get('name')} has value and valueFrom; allowed: one of them",
                )


def probes(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        for kind in _PROBES:
            probe = container.get(kind) or {}
            ways = [way for way in _WAYS if probe.get(way)]
            if probe and len(ways) != 1:
                yield Finding(
                    rule="pod-probe",
                    path=f"{path}/{kind}",
                    message=f"{kind} asks in {len(ways)} ways ({', '.join(ways) or 'none'}); "
                    f"allowed: one of {', '.join(_WAYS)}",
                )
            times = probe.get("successThreshold", 1)
            if kind != "readinessProbe" and times != 1:
                yield Finding(
                    rule="pod-probe",
                    path=f"{path}/{kind}/successThreshold",
                    message=f"successThreshold {times} of a {kind}; allowed: 1",
                )


def resources(pod: PodTemplate) -> Iterator[Finding]:
    """Names that no machine offers, pieces of a device, and units that cannot be meant."""
    for path, container in pod.containers():
        for kind in ("limits", "requests"):
            given = (container.get("resources") or {}).get(kind) or {}
            for name, amount in given.items():
                told = _mistaken(str(name), amount)
                if told:
                    key = str(name).replace("~", "~0").replace("/", "~1")
                    yield Finding(
                        rule="pod-resource",
                        path=f"{path}/resources/{kind}/{key}",
                        message=f"{name} {amount}: {told}",
                    )


def _mistaken(name: str, amount: object) -> str:
    if "/" not in name and name not in _NATIVE and not name.startswith("hugepages-"):
        return f"a server refuses it; allowed: {', '.join(_NATIVE)}, or DOMAIN/NAME as {_GPU}"
    if (
        "/" in name
        and name != _GPU
        and name.startswith("nvidia")
        and name.endswith(("gpu", "gpus"))
    ):
        return f"no machine offers it, the pod waits for ever; allowed: {_GPU}"
    if not is_quantity(amount):
        return ""  # another rule's
    if "/" in name and not quantity(amount).is_integer():
        return "a server takes whole devices only; allowed: 1 or more (shares of one: `num_gpus`)"
    if name in ("memory", "ephemeral-storage") and 0 < quantity(amount) < _MIB:
        return f"that is {quantity(amount):g} bytes; allowed: with a unit, as 8Gi"
    if name == "cpu" and quantity(amount) >= _MOST_CPUS:
        return f"that is {quantity(amount):g} cores, which no machine has; allowed: as 4, or 4000m"
    return ""


def spread(pod: PodTemplate) -> Iterator[Finding]:
    """A constraint counts the pods that it selects: without its own it holds nothing apart."""
    for index, each in enumerate(pod.spec.get("topologySpreadConstraints") or []):
        if not selects(each.get("labelSelector"), pod.labels):
            yield Finding(
                rule="pod-spread",
                path=f"{pod.path}/topologySpreadConstraints/{index}/labelSelector",
                message=f"{each.get('labelSelector')} means other pods than its own: they are not "
                "kept apart; allowed: labels of the same template",
            )


def root_filesystem(pod: PodTemplate) -> Iterator[Finding]:
    """Ray writes below /tmp/ray and its user's home."""
    if not pod.owner.startswith("Ray"):
        return
    for path, container in list(pod.containers())[:1]:
        mounts = {str(each.get("mountPath")) for each in container.get("volumeMounts") or []}
        is_read_only = (container.get("securityContext") or {}).get("readOnlyRootFilesystem")
        if is_read_only is True and "/tmp" not in mounts:
            yield Finding(
                rule="pod-root-read-only",
                path=f"{path}/securityContext/readOnlyRootFilesystem",
                message="true, and no volume at /tmp: Ray writes there and ends at its start; "
                "allowed: false, or emptyDir volumes at /tmp and /home/ray",
            )


def shared_memory(pod: PodTemplate) -> Iterator[Finding]:
    """What lies in it counts against the container's memory; on a disk NCCL and vLLM crawl."""
    kept = {each.get("name"): each.get("emptyDir") for each in pod.spec.get("volumes") or []}
    for path, container in pod.containers():
        limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
        for index, mount in enumerate(container.get("volumeMounts") or []):
            folder: Document | None = kept.get(mount.get("name"))
            if mount.get("mountPath") != "/dev/shm" or folder is None:
                continue
            size = folder.get("sizeLimit")
            told = ""
            if folder.get("medium") != "Memory":
                told = f"medium {folder.get('medium')!r} is a disk; allowed: Memory"
            elif is_quantity(size) and is_quantity(limit) and quantity(size) >= quantity(limit):
                told = f"sizeLimit {size} is all of the memory ({limit}); allowed: less"
            if told:
                yield Finding(
                    rule="pod-shm",
                    path=f"{path}/volumeMounts/{index}",
                    message=f"/dev/shm: {told}",
                )


RULES = (
    names,
    variables,
    probes,
    resources,
    spread,
    root_filesystem,
    shared_memory,
)
