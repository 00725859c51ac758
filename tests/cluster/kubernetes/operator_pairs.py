"""A mistake and its nearest right form, for each rule of KubeRay's operator."""

from __future__ import annotations

from tests.cluster.kubernetes.change import (
    Pair,
    alone,
    annotate,
    autoscaled,
    cluster,
    head,
    head_pod,
    head_ray,
    incremental,
    pod,
    scaled_incremental,
    set_env,
    state,
    worker,
)

_ROCKSDB = "GCSFaultToleranceEmbeddedStorage=true"
_NETWORK = "RayClusterNetworkPolicy=true"
_V2 = "RAY_enable_autoscaler_v2"
_RULES = [{"ports": [{"port": 8000}]}]


def _groups(name: str) -> dict[str, object]:
    return {"workerGroups": [{"groupName": name, "ingressRules": _RULES}]}


OPERATOR_PAIRS = {
    "operator-name": Pair(
        bad=lambda m: m["metadata"].update(name="s" * 48),
        good=lambda m: m["metadata"].update(name="s" * 47),
    ),
    "operator-cluster-name": Pair(
        bad=lambda m: alone(m, "c" * 54),
        good=lambda m: alone(m, "c" * 53),
    ),
    "operator-initializing-timeout": Pair(
        bad=lambda m: annotate(m, "ray.io/initializing-timeout", "-30m"),
        good=lambda m: annotate(m, "ray.io/initializing-timeout", "1h30m"),
    ),
    "operator-start-labels": Pair(
        bad=lambda m: worker(m).update(rayStartParams={"labels": "zone=a"}),
        good=lambda m: worker(m).update(labels={"zone": "a"}),
    ),
    "operator-label-syntax": Pair(
        bad=lambda m: worker(m).update(labels={"zone": "a b"}),
        good=lambda m: worker(m).update(labels={"squadron.dev/zone": "a-b", "empty": ""}),
    ),
    "operator-containers": Pair(
        bad=lambda m: cluster(m)["workerGroupSpecs"].append(
            {"groupName": "empty", "maxReplicas": 0, "template": {"spec": {"containers": []}}}
        ),
    ),
    "operator-replicas": Pair(
        bad=lambda m: worker(m).update(minReplicas=-1),
        good=lambda m: worker(m).update(minReplicas=0),
    ),
    "operator-idle-timeout": Pair(
        bad=lambda m: autoscaled(m, idleTimeoutSeconds=-1),
        good=lambda m: autoscaled(m, idleTimeoutSeconds=0),
    ),
    "operator-idle-timeout-version": Pair(
        bad=lambda m: (autoscaled(m, version="v1"), worker(m).update(idleTimeoutSeconds=60)),
        good=lambda m: (autoscaled(m), worker(m).update(idleTimeoutSeconds=60)),
    ),
    "operator-priority": Pair(
        bad=lambda m: (
            autoscaled(m),
            cluster(m).update(rayVersion="2.55.1"),
            worker(m).update(priority=1),
        ),
        good=lambda m: (
            autoscaled(m),
            cluster(m).update(rayVersion="2.56.0"),
            worker(m).update(priority=1),
        ),
    ),
    "operator-suspend": Pair(
        bad=lambda m: (autoscaled(m), worker(m).update(suspend=True)),
        good=lambda m: worker(m).update(suspend=True),
    ),
    "operator-resources-twice": Pair(
        bad=lambda m: worker(m).update(rayStartParams={"num-cpus": "4"}, resources={"CPU": "4"}),
        good=lambda m: worker(m).update(rayStartParams={}, resources={"CPU": "4"}),
    ),
    "operator-restart-policy": Pair(
        bad=lambda m: (autoscaled(m), pod(m).update(restartPolicy="Always")),
        good=lambda m: (autoscaled(m), pod(m).update(restartPolicy="Never")),
    ),
    "operator-autoscaler-twice": Pair(
        bad=lambda m: (autoscaled(m), set_env(head_ray(m), _V2, "1")),
        good=lambda m: (autoscaled(m, version=None), set_env(head_ray(m), _V2, "1")),
    ),
    "operator-autoscaler-variable": Pair(
        bad=lambda m: set_env(head_ray(m), _V2, "true"),
        good=lambda m: set_env(head_ray(m), _V2, "0"),
    ),
    "operator-autoscaler-command": Pair(
        bad=lambda m: autoscaled(
            m, env=[{"name": "KUBERAY_GEN_AUTOSCALER_START_CMD", "value": "true"}]
        ),
        good=lambda m: autoscaled(m, env=[{"name": "MY_AUTOSCALER_COMMAND", "value": "true"}]),
    ),
    "operator-head-account": Pair(
        bad=lambda m: (autoscaled(m), head_pod(m).update(serviceAccountName="ours")),
        good=lambda m: (autoscaled(m), head_pod(m).update(serviceAccountName="made")),
        beside=(
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "made", "namespace": "squadron"},
            },
        ),
    ),
    "operator-ft-annotation": Pair(
        bad=lambda m: (state(m, redisAddress="r:6379"), annotate(m, "ray.io/ft-enabled", "true")),
        good=lambda m: state(m, redisAddress="r:6379"),
    ),
    "operator-redis-parameter": Pair(
        bad=lambda m: (
            state(m, redisAddress="r:6379"),
            head(m)["rayStartParams"].update({"redis-password": "$REDIS"}),
        ),
        good=lambda m: state(
            m,
            redisAddress="r:6379",
            redisPassword={"valueFrom": {"secretKeyRef": {"name": "r", "key": "password"}}},
        ),
    ),
    "operator-redis-env": Pair(
        bad=lambda m: set_env(head_ray(m), "RAY_REDIS_ADDRESS", "redis:6379"),
        good=lambda m: (
            set_env(head_ray(m), "RAY_REDIS_ADDRESS", "redis:6379"),
            annotate(m, "ray.io/ft-enabled", "true"),
        ),
    ),
    "operator-redis-username": Pair(
        bad=lambda m: head(m)["rayStartParams"].update({"redis-username": "ray"}),
        good=lambda m: state(m, redisAddress="r:6379", redisUsername={"value": "ray"}),
    ),
    "operator-storage-backend": Pair(
        bad=lambda m: state(m, backend="redis", redisAddress="r:6379", storage={"size": "1Gi"}),
        good=lambda m: state(m, backend="rocksdb", storage={"size": "1Gi"}),
        gates=_ROCKSDB,
    ),
    "operator-rocksdb-redis": Pair(
        bad=lambda m: state(m, backend="rocksdb", redisAddress="r:6379"),
        good=lambda m: state(m, backend="redis", redisAddress="r:6379"),
        gates=_ROCKSDB,
    ),
    "operator-rocksdb-own": Pair(
        bad=lambda m: (
            state(m, backend="rocksdb"),
            set_env(head_ray(m), "RAY_gcs_storage_path", "/data"),
        ),
        good=lambda m: set_env(head_ray(m), "RAY_gcs_storage_path", "/data"),
        gates=_ROCKSDB,
    ),
    "operator-storage-claim": Pair(
        bad=lambda m: state(m, backend="rocksdb", storage={"claimName": "c", "size": "1Gi"}),
        good=lambda m: state(m, backend="rocksdb", storage={"claimName": "c"}),
        gates=_ROCKSDB,
    ),
    "operator-token-auth": Pair(
        bad=lambda m: cluster(m).update(rayVersion="2.51.9"),
        good=lambda m: cluster(m).update(rayVersion="2.52.0"),
    ),
    "operator-k8s-token-auth": Pair(
        bad=lambda m: cluster(m)["authOptions"].update(enableK8sTokenAuth=True),
        good=lambda m: cluster(m)["authOptions"].update(enableK8sTokenAuth=False),
    ),
    "operator-gate": Pair(
        bad=lambda m: cluster(m).update(tlsOptions={}),
        good=lambda m: cluster(m).update(networkPolicy={}),
        gates=_NETWORK,
    ),
    "operator-network-mode": Pair(
        bad=lambda m: cluster(m).update(
            networkPolicy={"mode": "DenyAllEgress", "head": {"ingressRules": _RULES}}
        ),
        good=lambda m: cluster(m).update(
            networkPolicy={"mode": "DenyAllIngress", "head": {"ingressRules": _RULES}}
        ),
        gates=_NETWORK,
    ),
    "operator-network-group": Pair(
        bad=lambda m: cluster(m).update(networkPolicy=_groups("wrokers")),
        good=lambda m: cluster(m).update(networkPolicy=_groups("workers")),
        gates=_NETWORK,
    ),
    "operator-network-group-name": Pair(
        bad=lambda m: (
            cluster(m).update(networkPolicy={"mode": "DenyAll"}),
            worker(m).update(groupName="Workers"),
        ),
        good=lambda m: worker(m).update(groupName="Workers"),
        gates=_NETWORK,
    ),
    "operator-tls-env": Pair(
        bad=lambda m: (cluster(m).update(tlsOptions={}), set_env(head_ray(m), "RAY_USE_TLS", "1")),
        good=lambda m: set_env(head_ray(m), "RAY_USE_TLS", "1"),
        gates="RayClusterMTLS=true",
    ),
    "operator-history-collector": Pair(
        bad=lambda m: cluster(m).update(historyServerOptions={"collectorOptions": {}}),
        good=lambda m: cluster(m).update(
            historyServerOptions={"collectorOptions": {"image": "collector:1"}}
        ),
        gates="RayClusterHistoryServer=true",
    ),
    "operator-upgrade-type": Pair(
        bad=lambda m: m["spec"].update(upgradeStrategy={"type": "BlueGreen"}),
        good=lambda m: m["spec"].update(upgradeStrategy={"type": "None"}),
    ),
    "operator-incremental-autoscaler": Pair(bad=incremental, good=scaled_incremental),
    "operator-incremental-options": Pair(
        bad=lambda m: (
            autoscaled(m),
            m["spec"].update(upgradeStrategy={"type": "NewClusterWithIncrementalUpgrade"}),
        ),
        good=scaled_incremental,
    ),
    "operator-incremental-step": Pair(
        bad=lambda m: scaled_incremental(m, stepSizePercent=90, maxSurgePercent=50),
        good=lambda m: scaled_incremental(m, stepSizePercent=50, maxSurgePercent=50),
    ),
    "operator-incremental-interval": Pair(
        bad=lambda m: scaled_incremental(m, intervalSeconds=0),
        good=lambda m: scaled_incremental(m, intervalSeconds=1),
    ),
    "operator-incremental-gateway": Pair(
        bad=lambda m: scaled_incremental(m, gatewayClassName=None), good=scaled_incremental
    ),
    "operator-deletion-delay": Pair(
        bad=lambda m: m["spec"].update(rayClusterDeletionDelaySeconds=-1),
        good=lambda m: m["spec"].update(rayClusterDeletionDelaySeconds=600),
    ),
    "operator-head-service-name": Pair(
        bad=lambda m: head(m).update(headService={"metadata": {"name": "head"}}),
        good=lambda m: head(m).update(headService={"metadata": {"labels": {"a": "b"}}}),
    ),
    "operator-cluster-upgrade": Pair(
        bad=lambda m: cluster(m).update(upgradeStrategy={"type": "Recreate"}),
        good=lambda m: m["spec"].update(upgradeStrategy={"type": "NewCluster"}),
    ),
    "operator-serve-port": Pair(
        bad=lambda m: head_ray(m).update(ports=[{"name": "gcs-server", "containerPort": 6379}]),
        good=lambda m: head_ray(m).update(ports=[]),
    ),
}
