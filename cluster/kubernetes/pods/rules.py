"""What an API server refuses in a pod and no schema knows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from cluster.config.security.secret_names import is_secret
from cluster.kubernetes.finding import Document, Finding, services_in
from cluster.kubernetes.guard import guarded
from cluster.kubernetes.pods.quantity import ALLOWED, is_quantity, quantity
from cluster.kubernetes.pods.stopping import grace_s, pre_stop, pre_stop_s
from cluster.kubernetes.pods.syntax import RULES as SYNTAX
from cluster.kubernetes.pods.templates import PodTemplate, pods_of

LAST_PORT = 65535
ENFORCE = "pod-security.kubernetes.io/enforce"
RESTRICTED = "pod-restricted"


def check_pods(documents: Sequence[Document]) -> list[Finding]:
    """Of every pod template in `documents`; of the level `restricted` where their namespace
    enforces it."""
    usual = (*_RULES, *SYNTAX)
    rules = (*usual, _restricted) if _enforces_restricted(documents) else usual
    found: list[Finding] = []
    for pod in pods_of(documents):
        for rule in rules:
            found += guarded(rule.__name__.strip("_"), rule, pod)
    if _enforces_restricted(documents):
        found += [each for one in services_in(list(documents)) for each in _autoscaler(one)]
    return found


def _enforces_restricted(documents: Sequence[Document]) -> bool:
    return any(
        ((each.get("metadata") or {}).get("labels") or {}).get(ENFORCE) == "restricted"
        for each in documents
        if each.get("kind") == "Namespace"
    )


def _restricted(pod: PodTemplate) -> Iterator[Finding]:
    for index, volume in enumerate(pod.spec.get("volumes") or []):
        if "hostPath" in volume:
            yield Finding(
                rule=RESTRICTED,
                path=f"{pod.path}/volumes/{index}/hostPath",
                message=f"{pod.owner}: the namespace enforces `restricted`, which admits no "
                "hostPath; allowed: a claim of a PersistentVolume with that path",
            )
    common = pod.spec.get("securityContext") or {}
    for path, container in pod.containers():
        own = container.get("securityContext") or {}
        both = {**common, **own}
        lacks = _lacks(own)
        if both.get("runAsNonRoot") is not True:
            lacks.append("runAsNonRoot: true")
        if both.get("runAsUser") == 0:
            lacks.append("runAsUser above 0")
        if set((own.get("capabilities") or {}).get("add") or []) - {"NET_BIND_SERVICE"}:
            lacks.append("capabilities.add without anything but NET_BIND_SERVICE")
        if (both.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
            lacks.append("seccompProfile: {type: RuntimeDefault}")
        if lacks:
            yield _unsafe(f"{path}/securityContext", pod.owner, lacks)


def _autoscaler(service: Document) -> Iterator[Finding]:
    """Its container is the operator's, in the head's pod; nothing is set there that is not said
    here."""
    cluster = (service.get("spec") or {}).get("rayClusterConfig") or {}
    lacks = _lacks((cluster.get("autoscalerOptions") or {}).get("securityContext") or {})
    if cluster.get("enableInTreeAutoscaling") and lacks:
        path = "/spec/rayClusterConfig/autoscalerOptions/securityContext"
        yield _unsafe(path, "the autoscaler's container", lacks)


def _lacks(context: Document) -> list[str]:
    """Of what only a container can say."""
    lacks = []
    if context.get("allowPrivilegeEscalation") is not False:
        lacks.append("allowPrivilegeEscalation: false")
    if "ALL" not in ((context.get("capabilities") or {}).get("drop") or []):
        lacks.append("capabilities: {drop: [ALL]}")
    return lacks


def _unsafe(path: str, owner: str, lacks: Sequence[str]) -> Finding:
    return Finding(
        rule=RESTRICTED,
        path=path,
        message=f"{owner}: the namespace enforces `restricted`, missing: {', '.join(lacks)}",
    )


def _limits(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        resources = container.get("resources") or {}
        limits = resources.get("limits") or {}
        requests = resources.get("requests") or {}
        for kind, given in (("limits", limits), ("requests", requests)):
            for name, text in given.items():
                if not is_quantity(text):
                    yield Finding(
                        rule="pod-quantity",
                        path=f"{path}/resources/{kind}/{_escaped(name)}",
                        message=f"{name} {text!r} is no quantity; allowed: {ALLOWED}",
                    )
        for name, asked in requests.items():
            if not is_quantity(asked) or not is_quantity(limits.get(name, 0)):
                continue
            at = f"{path}/resources/requests/{_escaped(name)}"
            if _is_extended(name):
                if name not in limits or quantity(asked) != quantity(limits[name]):
                    yield Finding(
                        rule="pod-extended-resource",
                        path=at,
                        message=f"request {name} {asked}, limit {limits.get(name)}: pieces of such "
                        f"a device are not shared out; allowed: a limit of {asked} as well",
                    )
            elif name in limits and quantity(asked) > quantity(limits[name]):
                yield Finding(
                    rule="pod-request-above-limit",
                    path=at,
                    message=f"request {name} {asked} is above the limit {limits[name]}; allowed: "
                    f"at most {limits[name]}",
                )


def _is_extended(name: str) -> bool:
    """`nvidia.com/gpu` and the like, by their domain. Source: Kubernetes, "Extended resources"."""
    return "/" in name and not name.startswith("kubernetes.io/")


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _twice(pod: PodTemplate) -> Iterator[Finding]:
    """Of two entries with one key a server keeps one, or refuses both."""
    named = [(path, container.get("name")) for path, container in pod.containers()]
    yield from _repeated("pod-duplicate-container", named, "containers of the pod")
    volumes = pod.spec.get("volumes") or []
    at = [(f"{pod.path}/volumes/{i}", each.get("name")) for i, each in enumerate(volumes)]
    yield from _repeated("pod-duplicate-volume", at, "volumes of the pod")
    for path, container in pod.containers():
        for rule, field, key in (
            ("pod-duplicate-env", "env", "name"),
            ("pod-duplicate-port", "ports", "name"),
            ("pod-duplicate-port", "ports", "containerPort"),
            ("pod-duplicate-mount", "volumeMounts", "mountPath"),
        ):
            given = container.get(field) or []
            entries = [
                (f"{path}/{field}/{index}", _key(each, key))
                for index, each in enumerate(given)
                if each.get(key) is not None
            ]
            yield from _repeated(rule, entries, f"{key} of {field}")


def _key(entry: Document, key: str) -> object:
    """A port's number may serve UDP as well."""
    if key == "containerPort":
        return f"{entry[key]}/{entry.get('protocol', 'TCP')}"
    return entry[key]


def _repeated(rule: str, entries: Sequence[tuple[str, object]], what: str) -> Iterator[Finding]:
    seen: dict[object, str] = {}
    for path, name in entries:
        if name in seen:
            yield Finding(
                rule=rule,
                path=path,
                message=f"{name!r} is taken by {seen[name]}; allowed: different {what}",
            )
        seen.setdefault(name, path)


def _privileged(pod: PodTemplate) -> Iterator[Finding]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(name) is True:
            yield Finding(
                rule="pod-privileged",
                path=f"{pod.path}/{name}",
                message=f"{pod.owner}: {name} true opens the node to the pod; allowed: false",
            )
    for path, container in pod.containers():
        if (container.get("securityContext") or {}).get("privileged") is True:
            yield Finding(
                rule="pod-privileged",
                path=f"{path}/securityContext/privileged",
                message=f"{pod.owner}: privileged true is root on the node; allowed: false",
            )


def _hooks(pod: PodTemplate) -> Iterator[Finding]:
    """The grace period runs from the deletion on, hooks included: what it cuts off gets SIGKILL."""
    for path, container in pod.containers():
        lifecycle = container.get("lifecycle") or {}
        at = f"{path}/lifecycle/preStop"
        given = lifecycle.get("preStop") if isinstance(lifecycle, dict) else lifecycle
        if given is not None and not isinstance(given, dict):
            yield Finding(
                rule="pod-hook",
                path=at,
                message=f"{given!r} is no hook; allowed: one of exec: {{command: [...]}}, sleep: "
                "{seconds: N}, httpGet",
            )
            continue
        kinds = [kind for kind, value in pre_stop(container).items() if value]
        command = (pre_stop(container).get("exec") or {}) if "exec" in kinds else {"command": []}
        is_command = isinstance(command, dict) and isinstance(command.get("command"), list)
        if len(kinds) > 1 or not is_command:
            yield Finding(
                rule="pod-hook",
                path=at,
                message=f"{dict(given or {})}; allowed: one of exec, sleep and httpGet, exec as "
                "{command: [...]}",
            )
        elif pre_stop_s(container) >= grace_s(pod.spec):
            yield Finding(
                rule="pod-hook-too-long",
                path=at,
                message=f"preStop takes {pre_stop_s(container):g} s of the "
                f"{grace_s(pod.spec):g} s of terminationGracePeriodSeconds: SIGTERM never comes; "
                "allowed: less than that",
            )


def _secrets(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        for index, each in enumerate(container.get("env") or []):
            name, value = str(each.get("name", "")), each.get("value")
            if isinstance(value, str) and is_secret(name, value):
                yield Finding(
                    rule="inline-secret",
                    path=f"{path}/env/{index}/value",
                    message=f"{name} stands here in plain text, for whoever reads the manifest; "
                    "allowed: valueFrom.secretKeyRef",
                )


def _mounts(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        for index, mount in enumerate(container.get("volumeMounts") or []):
            if mount.get("name") not in pod.volumes:
                yield Finding(
                    rule="pod-unknown-volume",
                    path=f"{path}/volumeMounts/{index}/name",
                    message=f"no volume {mount.get('name')!r}; allowed: {sorted(pod.volumes)}",
                )


def _images(pod: PodTemplate) -> Iterator[Finding]:
    """Another image under the same words: nodes of one cluster would differ."""
    for path, container in pod.containers():
        image = str(container.get("image", ""))
        name, _, digest = image.partition("@")
        tag = name.rpartition("/")[2].partition(":")[2]
        if image and not digest and tag in ("", "latest"):
            yield Finding(
                rule="pod-image-tag",
                path=f"{path}/image",
                message=f"{image!r} is whatever was pushed last; allowed: a version as its tag, "
                "or a digest",
            )


def _ports(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        for index, port in enumerate(container.get("ports") or []):
            number = port.get("containerPort")
            if not isinstance(number, int) or not 0 < number <= LAST_PORT:
                yield Finding(
                    rule="pod-port",
                    path=f"{path}/ports/{index}/containerPort",
                    message=f"{number!r} is no port; allowed: 1 to {LAST_PORT}",
                )


def _signals(pod: PodTemplate) -> Iterator[Finding]:
    """A pipe's last command is a child whatever it says: SIGTERM ends at the shell."""
    for path, container in pod.containers():
        said = [str(each) for key in ("command", "args") for each in container.get(key) or []]
        if any(re.search(r"\|\s*exec\b", each) for each in said):
            yield Finding(
                rule="pod-exec-in-pipe",
                path=f"{path}/args",
                message="`| exec` replaces no shell: the program never gets SIGTERM; allowed: a "
                "file instead of the pipe",
            )


_RULES: tuple[Callable[[PodTemplate], Iterator[Finding]], ...] = (
    _limits,
    _twice,
    _privileged,
    _hooks,
    _secrets,
    _mounts,
    _images,
    _ports,
    _signals,
)
