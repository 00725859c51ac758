"""Groups, and the autoscaler that changes their size, as the operator wants them."""

from __future__ import annotations

from cluster.kubernetes.operator.rule import V2_VARIABLE, Facts, Mistakes, Rule

START_COMMAND = "KUBERAY_GEN_AUTOSCALER_START_CMD"
PRIORITY_VERSION = (2, 56)
_RAY_RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")


def _containers(facts: Facts) -> Mistakes:
    for group in facts.groups:
        if not group.pod.get("containers"):
            yield (
                f"{group.path}/template/spec/containers",
                f"group {group.name!r}: containers is empty; allowed: one or more, the first is "
                "Ray's",
            )


def _replicas(facts: Facts) -> Mistakes:
    """Both numbers must be there without the autoscaler; the CRD's defaults see to that."""
    for group in facts.workers:
        least, most = group.spec.get("minReplicas", 0), group.spec.get("maxReplicas", 2**31 - 1)
        if isinstance(least, int) and isinstance(most, int) and not 0 <= least <= most:
            yield (
                f"{group.path}/minReplicas",
                f"minReplicas {least}, maxReplicas {most}; allowed: 0 <= minReplicas <= "
                "maxReplicas",
            )


def _idle_timeout(facts: Facts) -> Mistakes:
    given = [(f"{each.path}/idleTimeoutSeconds", each.spec) for each in facts.workers]
    given.append((f"{facts.base}/autoscalerOptions/idleTimeoutSeconds", facts.autoscaler))
    for path, spec in given:
        timeout_s = spec.get("idleTimeoutSeconds")
        if isinstance(timeout_s, int) and timeout_s < 0:
            yield path, f"idleTimeoutSeconds {timeout_s}; allowed: 0 or more"


def _idle_timeout_version(facts: Facts) -> Mistakes:
    for group in facts.workers:
        if group.spec.get("idleTimeoutSeconds") is not None and not facts.is_v2:
            yield (
                f"{group.path}/idleTimeoutSeconds",
                f"idleTimeoutSeconds {group.spec['idleTimeoutSeconds']} of a group needs "
                "enableInTreeAutoscaling and autoscalerOptions.version: v2; allowed otherwise: "
                "autoscalerOptions.idleTimeoutSeconds",
            )


def _priority(facts: Facts) -> Mistakes:
    for group in facts.workers:
        priority = group.spec.get("priority") or 0
        if priority and not (facts.is_v2 and (facts.version or (0, 0)) >= PRIORITY_VERSION):
            yield (
                f"{group.path}/priority",
                f"priority {priority} needs rayVersion 2.56 or later (it is "
                f"{facts.cluster.get('rayVersion')!r}) and autoscalerOptions.version: v2; allowed "
                "otherwise: 0",
            )


def _suspend(facts: Facts) -> Mistakes:
    for group in facts.workers:
        if group.spec.get("suspend") is True and facts.has_autoscaler:
            yield (
                f"{group.path}/suspend",
                "suspend true excludes enableInTreeAutoscaling: true; allowed: false",
            )


def _resources_twice(facts: Facts) -> Mistakes:
    for group in facts.groups:
        given = group.spec.get("rayStartParams") or {}
        twice = [name for name in _RAY_RESOURCES if given.get(name)]
        if twice and group.spec.get("resources"):
            yield (
                f"{group.path}/rayStartParams/{twice[0]}",
                f"rayStartParams.{twice[0]} {given[twice[0]]!r} beside `resources` "
                f"{group.spec['resources']}; allowed: one of the two places",
            )


def _restart_policy(facts: Facts) -> Mistakes:
    if not (facts.has_autoscaler and facts.autoscaler.get("version") == "v2"):
        return
    for group in facts.groups:
        policy = group.pod.get("restartPolicy")
        if policy not in (None, "", "Never"):
            yield (
                f"{group.path}/template/spec/restartPolicy",
                f"restartPolicy {policy!r} with autoscaler v2; allowed: Never, or none",
            )


def _autoscaler_twice(facts: Facts) -> Mistakes:
    if facts.has_autoscaler and facts.autoscaler.get("version") and V2_VARIABLE in facts.head.env():
        yield (
            f"{facts.head.path}/template/spec/containers/0/env",
            f"{V2_VARIABLE} beside autoscalerOptions.version "
            f"{facts.autoscaler['version']!r}; allowed: the latter alone",
        )


def _autoscaler_variable(facts: Facts) -> Mistakes:
    value = facts.head.env().get(V2_VARIABLE)
    if not facts.has_autoscaler and value in ("1", "true"):
        yield (
            f"{facts.head.path}/template/spec/containers/0/env",
            f"{V2_VARIABLE} {value!r} without enableInTreeAutoscaling: true; allowed: 0, or none",
        )


def _autoscaler_command(facts: Facts) -> Mistakes:
    for index, each in enumerate(facts.autoscaler.get("env") or []):
        if each.get("name") == START_COMMAND:
            yield (
                f"{facts.base}/autoscalerOptions/env/{index}",
                f"{START_COMMAND} {each.get('value')!r} is the operator's own; allowed: any other "
                "name",
            )


def _head_account(facts: Facts) -> Mistakes:
    """The operator makes the autoscaler's account and its role, but not under another name."""
    account = facts.head.pod.get("serviceAccountName")
    if facts.has_autoscaler and account and account not in facts.accounts:
        yield (
            f"{facts.head.path}/template/spec/serviceAccountName",
            f"serviceAccountName {account!r} is made by nobody (the autoscaler needs it, with a "
            f"role); allowed: none, or a ServiceAccount beside it, here: {sorted(facts.accounts)}",
        )


GROUPS = (
    Rule(id="operator-containers", check=_containers),
    Rule(id="operator-replicas", check=_replicas),
    Rule(id="operator-idle-timeout", check=_idle_timeout),
    Rule(id="operator-idle-timeout-version", check=_idle_timeout_version),
    Rule(id="operator-priority", check=_priority),
    Rule(id="operator-suspend", check=_suspend),
    Rule(id="operator-resources-twice", check=_resources_twice),
    Rule(id="operator-restart-policy", check=_restart_policy),
    Rule(id="operator-autoscaler-twice", check=_autoscaler_twice),
    Rule(id="operator-autoscaler-variable", check=_autoscaler_variable),
    Rule(id="operator-autoscaler-command", check=_autoscaler_command),
    Rule(
        id="operator-head-account",
        check=_head_account,
        source="KubeRay v1.7.0, ray-operator/controllers/ray/raycluster_controller.go",
    ),
)
