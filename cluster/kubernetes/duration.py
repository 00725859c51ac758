"""How long a change takes, from what starting and draining take at most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import yaml

from cluster.config.serve_file import IMPORT_PATH
from cluster.config.squadron import SquadronConfig
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError
from cluster.kubernetes.finding import Document, groups_of
from cluster.kubernetes.pods.stopping import grace_s, pre_stop_s
from cluster.kubernetes.policy_rules import DRAIN_DEFAULT_S, DRAIN_VARIABLE

DELETION_DELAY_DEFAULT_S = 60.0
"""KubeRay 1.7 keeps the old cluster so long after the switch."""
ROLLING_SHARE = 0.2
"""Serve 2.60 replaces so much of a deployment at a time (`rolling_update_percentage`)."""
SHUTDOWN_MARGIN_S = 5.0
"""Our deployments' `graceful_shutdown_timeout_s` is the longest request and this."""
DEFAULT_TIMEOUT_S = 60.0
POD_START_S = 120.0
REPLICA_START_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTimes:
    """What nobody reads off a manifest, in seconds. `pod_s`: a node, its image and Ray.
    `replica_s`: a model loaded and warm (`ray_serve_replica_startup_latency_ms` of the running
    cluster says it)."""

    pod_s: float = POD_START_S
    replica_s: float = REPLICA_START_S


def second_cluster_s(new: Document, times: StartTimes) -> tuple[float, str]:
    """How long two clusters stand beside each other, and the sum in words."""
    spec = new.get("spec") or {}
    switch_s, switch = _switch_s(spec)
    delay = spec.get("rayClusterDeletionDelaySeconds")
    delay_s = float(DELETION_DELAY_DEFAULT_S if delay is None else delay)
    drain_s = max((_pod_end_s(group.pod, group.env()) for group in groups_of(new)), default=0.0)
    total_s = times.pod_s + times.replica_s + switch_s + delay_s + drain_s
    return total_s, (
        f"pods {times.pod_s:g} s + replicas {times.replica_s:g} s{switch} + deletion delay "
        f"{delay_s:g} s + drain at most {drain_s:g} s"
    )


def in_place_s(new: Document, times: StartTimes) -> tuple[float, str]:
    """How long Serve takes at most to replace the replicas of every variant, and the sum."""
    counts, timeout_s = _replicas(str((new.get("spec") or {}).get("serveConfigV2") or ""))
    waves = max(
        (math.ceil(count / max(1, math.floor(ROLLING_SHARE * count))) for count in counts if count),
        default=1,
    )
    drain_s = timeout_s + SHUTDOWN_MARGIN_S
    total_s = waves * (times.replica_s + drain_s)
    return total_s, (
        f"{waves} waves of replicas, each {times.replica_s:g} s to start and at most {drain_s:g} s "
        "to drain"
    )


def _switch_s(spec: Document) -> tuple[float, str]:
    strategy = spec.get("upgradeStrategy") or {}
    if strategy.get("type") != "NewClusterWithIncrementalUpgrade":
        return 0.0, ""
    options = strategy.get("clusterUpgradeOptions") or {}
    steps = math.ceil(100 / max(1, int(options.get("stepSizePercent") or 100)))
    interval_s = float(options.get("intervalSeconds") or 0)
    return steps * interval_s, f" + {steps} steps of {interval_s:g} s"


def _pod_end_s(pod: Document, environment: dict[str, str]) -> float:
    """From a pod's deletion to its end: preStop and drain, cut off by the grace period."""
    containers = pod.get("containers") or [{}]
    drain_s = float(environment.get(DRAIN_VARIABLE) or DRAIN_DEFAULT_S)
    return min(pre_stop_s(containers[0]) + drain_s, grace_s(pod))


def _replicas(text: str) -> tuple[list[int], float]:
    """Replicas of each variant (the most, where they are scaled) and the longest request."""
    content = yaml.safe_load(text) or {}
    for app in content.get("applications") or []:
        if app.get("import_path") != IMPORT_PATH:
            continue
        try:
            config = check_section(app.get("args") or {}, SquadronConfig, source="serveConfigV2")
        except ConfigError:
            break  # `check` has its own finding for it
        counts = [
            variant.autoscaling.max_replicas if variant.autoscaling else variant.replicas
            for variant in config.variants.values()
        ]
        return counts, config.server.limits.default_timeout_s
    return [1], DEFAULT_TIMEOUT_S
