"""Every rule of KubeRay's operator that is checked here, and the check itself.

Not ported, for the CRD's defaults see to it: that both `minReplicas` and `maxReplicas` are there
while the autoscaler is off.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster.kubernetes.finding import Document, Finding
from cluster.kubernetes.guard import guarded
from cluster.kubernetes.operator.access import ACCESS
from cluster.kubernetes.operator.fault_tolerance import FAULT_TOLERANCE
from cluster.kubernetes.operator.feature_gates import FeatureGates
from cluster.kubernetes.operator.groups import GROUPS
from cluster.kubernetes.operator.names import NAMES
from cluster.kubernetes.operator.rule import Facts
from cluster.kubernetes.operator.service import RAY_SERVICE

OPERATOR_RULES = (*NAMES, *GROUPS, *FAULT_TOLERANCE, *ACCESS, *RAY_SERVICE)


def check_operator_rules(documents: Sequence[Document], gates: FeatureGates) -> list[Finding]:
    """Of the RayServices and RayClusters in `documents`."""
    accounts = frozenset(
        str((each.get("metadata") or {}).get("name"))
        for each in documents
        if each.get("kind") == "ServiceAccount"
    )
    found: list[Finding] = []
    for document in documents:
        facts = Facts(document=document, gates=gates, accounts=accounts)
        for rule in OPERATOR_RULES:
            found += guarded(rule.id, rule.findings, facts)
    return found
