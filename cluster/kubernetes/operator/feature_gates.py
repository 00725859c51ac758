"""What of KubeRay's operator is switched on, as its `--feature-gates` says it."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.errors import ConfigError

DEFAULTS = {
    "RayClusterStatusConditions": True,
    "RayJobDeletionPolicy": True,
    "RayMultiHostIndexing": True,
    "RayServiceIncrementalUpgrade": True,
    "RayCronJob": False,
    "SidecarSubmitterRestart": False,
    "RayClusterNetworkPolicy": False,
    "GCSFaultToleranceEmbeddedStorage": False,
    "RayClusterMTLS": False,
    "RayClusterHistoryServer": False,
    "KubernetesWAS": False,
}
"""Source: KubeRay v1.7.0, ray-operator/pkg/features/features.go; alpha is off, beta is on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureGates:
    """`on`: names of those that are."""

    on: frozenset[str] = frozenset(name for name, is_on in DEFAULTS.items() if is_on)

    def has(self, name: str) -> bool:
        return name in self.on


def parse_gates(text: str) -> FeatureGates:
    """`RayClusterMTLS=true,RayMultiHostIndexing=false`; the others stay at their defaults.

    Raises: ConfigError naming the gate, its value and what is allowed.
    """
    on = dict(DEFAULTS)
    for each in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = each.partition("=")
        if name not in DEFAULTS:
            raise ConfigError(
                f"--feature-gates: {name!r} is no gate of KubeRay 1.7; allowed: "
                f"{', '.join(sorted(DEFAULTS))}",
                key="--feature-gates",
                value=name,
            )
        if not equals or value.lower() not in ("true", "false"):
            raise ConfigError(
                f"--feature-gates: {name}={value!r}; allowed: true, false",
                key="--feature-gates",
                value=each,
            )
        on[name] = value.lower() == "true"
    return FeatureGates(on=frozenset(name for name, is_on in on.items() if is_on))
