"""Triton's `instance_group` as replicas, device and what each replica reserves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.protocols.triton.findings import Findings
from cluster.protocols.triton.model_config import enum_name

_NO_COUNTERPART = {
    "rate_limiter": "replicas are limited by what they reserve (resources), not by named resources",
    "secondary_devices": "only accelerators of other runtimes have them",
    "profile": "only TensorRT plans have profiles",
    "passive": "a replica that takes no requests is not started: use replicas: 0",
    "host_policy": "threads of a replica are pinned by its own options",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """`num_gpus`: the share of a GPU that one replica reserves; 0 on a CPU."""

    replicas: int = 1
    device: str = "auto"
    num_gpus: float = 0.0

    def section(self) -> dict[str, object]:
        """Keys of a variant whose value is not the default."""
        found: dict[str, object] = {}
        if self.device != "auto":
            found["device"] = self.device
        if self.replicas != 1:
            found["replicas"] = self.replicas
        if self.num_gpus:
            found["resources"] = {"num_gpus": round(self.num_gpus, 4)}
        return found


def instances_of(config: Any, findings: Findings) -> Instances:
    """One kind of device a variant: the first group decides it, counts of its kind are summed."""
    for group in config.instance_group:
        for descriptor, _ in group.ListFields():
            reason = _NO_COUNTERPART.get(descriptor.name)
            if reason:
                findings.dropped(f"instance_group.{descriptor.name}", reason)
    groups = list(config.instance_group)
    if not groups:
        return Instances()
    kinds = [enum_name(group, "kind") for group in groups]
    kind = kinds[0]
    for other in dict.fromkeys(kinds[1:]):
        if other != kind:
            findings.dropped(
                "instance_group.kind",
                f"the groups of {other} are left out: a variant runs on one kind of device; "
                "write a second variant for the other",
            )
    same = [group for group, its in zip(groups, kinds, strict=True) if its == kind]
    counts = [max(1, group.count) for group in same]
    match kind:
        case "KIND_CPU":
            return Instances(replicas=sum(counts), device="cpu")
        case "KIND_GPU":
            replicas = sum(
                count * max(1, len(group.gpus)) for count, group in zip(counts, same, strict=True)
            )
            if any(group.gpus for group in same):
                findings.changed(
                    "instance_group.gpus",
                    "Ray chooses the GPUs; as many replicas run, each with its share of one",
                )
            return Instances(replicas=replicas, device="cuda", num_gpus=1 / max(counts))
        case "KIND_MODEL":
            findings.changed("instance_group.kind", "KIND_MODEL: the engine's `device: auto`")
    return Instances(replicas=sum(counts))
