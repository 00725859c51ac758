"""How a RayService is reached and replaced, as the operator wants it."""

from __future__ import annotations

from cluster.kubernetes.finding import Document
from cluster.kubernetes.operator.rule import SERVICE, Facts, Mistakes, Rule

INCREMENTAL = "NewClusterWithIncrementalUpgrade"
UPGRADE_TYPES = ("NewCluster", INCREMENTAL, "None")
_STRATEGY = "/spec/upgradeStrategy"
_OPTIONS = f"{_STRATEGY}/clusterUpgradeOptions"


def _strategy(facts: Facts) -> Document:
    found = facts.spec.get("upgradeStrategy")
    return found if isinstance(found, dict) else {}


def _options(facts: Facts) -> Document | None:
    """Of an incremental upgrade; None for other ones."""
    if _strategy(facts).get("type") != INCREMENTAL:
        return None
    found = _strategy(facts).get("clusterUpgradeOptions")
    return found if isinstance(found, dict) else {}


def _upgrade_type(facts: Facts) -> Mistakes:
    kind = _strategy(facts).get("type", "NewCluster")
    if kind not in UPGRADE_TYPES:
        yield f"{_STRATEGY}/type", f"type {kind!r}; allowed: {', '.join(UPGRADE_TYPES)}"


def _incremental_autoscaler(facts: Facts) -> Mistakes:
    if _options(facts) is not None and not facts.has_autoscaler:
        yield (
            f"{facts.base}/enableInTreeAutoscaling",
            f"enableInTreeAutoscaling {facts.cluster.get('enableInTreeAutoscaling')!r} with "
            f"{INCREMENTAL}; allowed: true",
        )


def _incremental_options(facts: Facts) -> Mistakes:
    if _options(facts) == {}:
        yield (
            _OPTIONS,
            f"clusterUpgradeOptions is missing for {INCREMENTAL}; allowed: gatewayClassName, "
            "stepSizePercent, intervalSeconds, maxSurgePercent",
        )


def _incremental_step(facts: Facts) -> Mistakes:
    """The operator takes a step of 0 as well, which never gets anywhere."""
    options = _options(facts)
    if not options:
        return
    step, surge = options.get("stepSizePercent"), options.get("maxSurgePercent", 100)
    if not (isinstance(step, int) and isinstance(surge, int) and 0 < step <= surge <= 100):
        yield (
            f"{_OPTIONS}/stepSizePercent",
            f"stepSizePercent {step}, maxSurgePercent {surge}; allowed: 1 <= stepSizePercent <= "
            "maxSurgePercent <= 100",
        )


def _incremental_interval(facts: Facts) -> Mistakes:
    options = _options(facts)
    interval_s = (options or {}).get("intervalSeconds")
    if options and not (isinstance(interval_s, int) and interval_s > 0):
        yield f"{_OPTIONS}/intervalSeconds", f"intervalSeconds {interval_s}; allowed: above 0"


def _incremental_gateway(facts: Facts) -> Mistakes:
    options = _options(facts)
    if options and not options.get("gatewayClassName"):
        yield (
            f"{_OPTIONS}/gatewayClassName",
            f"gatewayClassName {options.get('gatewayClassName')!r}; allowed: a GatewayClass of the "
            "cluster",
        )


def _deletion_delay(facts: Facts) -> Mistakes:
    delay_s = facts.spec.get("rayClusterDeletionDelaySeconds")
    if isinstance(delay_s, int) and delay_s < 0:
        yield (
            "/spec/rayClusterDeletionDelaySeconds",
            f"rayClusterDeletionDelaySeconds {delay_s}; allowed: 0 or more",
        )


def _head_service(facts: Facts) -> Mistakes:
    service = facts.head.spec.get("headService") or {}
    name = (service.get("metadata") or {}).get("name")
    if name:
        yield (
            f"{facts.head.path}/headService/metadata/name",
            f"headService.metadata.name {name!r}; allowed: none, the operator gives it",
        )


def _cluster_upgrade(facts: Facts) -> Mistakes:
    strategy = facts.cluster.get("upgradeStrategy")
    if strategy:
        yield (
            f"{facts.base}/upgradeStrategy",
            f"upgradeStrategy {strategy} of a cluster inside a RayService; allowed: none there, "
            f"and {_STRATEGY[1:].replace('/', '.')}",
        )


def _serve_port(facts: Facts) -> Mistakes:
    """Without such a port no Service for the doors is made; without any, the operator adds all."""
    ports = facts.head.container.get("ports") or []
    names = [str(each.get("name", "")) for each in ports]
    if names and not any(name == "serve" or name.startswith("serve-") for name in names):
        yield (
            f"{facts.head.path}/template/spec/containers/0/ports",
            f"ports {', '.join(names)} of the head hold none of the name `serve`: no Service for "
            "the doors is made; allowed: one named serve or serve-*, or no ports at all",
        )


RAY_SERVICE = (
    Rule(id="operator-upgrade-type", check=_upgrade_type, kinds=(SERVICE,)),
    Rule(id="operator-incremental-autoscaler", check=_incremental_autoscaler, kinds=(SERVICE,)),
    Rule(id="operator-incremental-options", check=_incremental_options, kinds=(SERVICE,)),
    Rule(id="operator-incremental-step", check=_incremental_step, kinds=(SERVICE,)),
    Rule(id="operator-incremental-interval", check=_incremental_interval, kinds=(SERVICE,)),
    Rule(id="operator-incremental-gateway", check=_incremental_gateway, kinds=(SERVICE,)),
    Rule(id="operator-deletion-delay", check=_deletion_delay, kinds=(SERVICE,)),
    Rule(id="operator-head-service-name", check=_head_service, kinds=(SERVICE,)),
    Rule(id="operator-cluster-upgrade", check=_cluster_upgrade, kinds=(SERVICE,)),
    Rule(
        id="operator-serve-port",
        check=_serve_port,
        kinds=(SERVICE,),
        source="KubeRay v1.7.0, ray-operator/controllers/ray/common/service.go",
    ),
)
