"""Authentication, and fields behind a feature gate."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cluster.kubernetes.finding import Document
from cluster.kubernetes.operator.rule import SERVICE, Facts, Mistakes, Rule

TOKEN_VERSION = (2, 52)
_GATED = {
    "networkPolicy": "RayClusterNetworkPolicy",
    "tlsOptions": "RayClusterMTLS",
    "historyServerOptions": "RayClusterHistoryServer",
}
_ROCKSDB = "GCSFaultToleranceEmbeddedStorage"
_SUSPEND = "RayJobDeletionPolicy"
_INCREMENTAL = "RayServiceIncrementalUpgrade"
_TLS_ENV = ("RAY_USE_TLS", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
_DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def _token_auth(facts: Facts) -> Mistakes:
    mode = (facts.cluster.get("authOptions") or {}).get("mode")
    if mode == "token" and (facts.version or (0, 0)) < TOKEN_VERSION:
        yield (
            f"{facts.base}/rayVersion",
            f"rayVersion {facts.cluster.get('rayVersion', '')!r} with authOptions.mode token; "
            "allowed: 2.52 or later",
        )


def _k8s_token_auth(facts: Facts) -> Mistakes:
    if (facts.cluster.get("authOptions") or {}).get("enableK8sTokenAuth") is True:
        yield (
            f"{facts.base}/authOptions/enableK8sTokenAuth",
            "enableK8sTokenAuth true in a RayService; allowed: false, with mode: token and a "
            "secretName",
        )


def _gates(facts: Facts) -> Mistakes:
    for path, what, gate in _needed(facts):
        if not facts.gates.has(gate):
            yield (
                path,
                f"{what} needs the operator's feature gate {gate}, which is off; allowed: without "
                f"it, or with --feature-gates {gate}=true (the operator's, and this command's)",
            )


def _needed(facts: Facts) -> Iterator[tuple[str, str, str]]:
    for field, gate in _GATED.items():
        if facts.cluster.get(field) is not None:
            yield f"{facts.base}/{field}", field, gate
    backend = (facts.cluster.get("gcsFaultToleranceOptions") or {}).get("backend")
    if backend == "rocksdb":
        path = f"{facts.base}/gcsFaultToleranceOptions/backend"
        yield path, "gcsFaultToleranceOptions.backend 'rocksdb'", _ROCKSDB
    for group in facts.workers:
        if group.spec.get("suspend") is True:
            yield f"{group.path}/suspend", "suspend true of a group", _SUSPEND
    strategy = facts.spec.get("upgradeStrategy") or {}
    if strategy.get("type") == "NewClusterWithIncrementalUpgrade":
        yield "/spec/upgradeStrategy/type", f"type {strategy['type']!r}", _INCREMENTAL


def _policy(facts: Facts) -> Document | None:
    found = facts.cluster.get("networkPolicy")
    return found if isinstance(found, dict) else None


def _network_mode(facts: Facts) -> Mistakes:
    """Rules that let something in or out say nothing where all of it may pass."""
    policy = _policy(facts) or {}
    mode = policy.get("mode", "DenyAll")
    idle = {"DenyAllEgress": "ingressRules", "DenyAllIngress": "egressRules"}.get(mode)
    at = f"{facts.base}/networkPolicy"
    parts = [(f"{at}/{name}", policy.get(name) or {}) for name in ("head", "worker")]
    parts += [
        (f"{at}/workerGroups/{index}", each)
        for index, each in enumerate(policy.get("workerGroups") or [])
    ]
    for path, part in parts:
        if idle and part.get(idle):
            yield (
                f"{path}/{idle}",
                f"{idle} with networkPolicy.mode {mode!r}, which restricts none of that; allowed: "
                f"mode DenyAll, or no {idle}",
            )


def _network_group(facts: Facts) -> Mistakes:
    names = [group.name for group in facts.workers]
    for index, each in enumerate((_policy(facts) or {}).get("workerGroups") or []):
        if each.get("groupName") not in names:
            yield (
                f"{facts.base}/networkPolicy/workerGroups/{index}/groupName",
                f"groupName {each.get('groupName')!r} is no worker group; allowed: "
                f"{', '.join(names)}",
            )


def _network_group_name(facts: Facts) -> Mistakes:
    for group in facts.workers if _policy(facts) is not None else ():
        if not _DNS_1123.fullmatch(group.name):
            yield (
                f"{group.path}/groupName",
                f"groupName {group.name!r} with networkPolicy (it becomes part of its name); "
                "allowed: at most 63 of a-z, 0-9 and '-', no '-' at the ends",
            )


def _tls_env(facts: Facts) -> Mistakes:
    if facts.cluster.get("tlsOptions") is None:
        return
    for group in facts.groups:
        for name in _TLS_ENV:
            if name in group.env():
                yield (
                    f"{group.path}/template/spec/containers/0/env",
                    f"{name} beside tlsOptions is the operator's own; allowed: other names",
                )


def _history(facts: Facts) -> Mistakes:
    options = facts.cluster.get("historyServerOptions")
    if options is None:
        return
    collector = (options or {}).get("collectorOptions") or {}
    if not collector.get("image"):
        yield (
            f"{facts.base}/historyServerOptions/collectorOptions",
            f"collectorOptions.image {collector.get('image')!r}; allowed: the collector's image",
        )


ACCESS = (
    Rule(id="operator-token-auth", check=_token_auth),
    Rule(id="operator-k8s-token-auth", check=_k8s_token_auth, kinds=(SERVICE,)),
    Rule(id="operator-gate", check=_gates),
    Rule(id="operator-network-mode", check=_network_mode),
    Rule(id="operator-network-group", check=_network_group),
    Rule(id="operator-network-group-name", check=_network_group_name),
    Rule(id="operator-tls-env", check=_tls_env),
    Rule(id="operator-history-collector", check=_history),
)
