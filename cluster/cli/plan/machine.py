"""A plan for machines: one JSON object."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.placement.search.plan import (
    Plan,
    PlannedModel,
    PlannedReplica,
    PlannedShard,
    Rejected,
    Shortage,
)

VERSION = 1
"""Of the shape of these objects: keys may be added under it, none changes its meaning or goes."""


def as_json(plan: Plan) -> dict[str, object]:
    """The whole cluster by device, and each model by itself. `placement` is what to write into a
    variant's section; `attainment` is simulated; `bytes` are weights, caches and activations."""
    replicas: dict[str, list[PlannedReplica]] = {}
    for replica in plan.replicas:
        replicas.setdefault(replica.model, []).append(replica)
    return {
        "version": VERSION,
        "fits": True,
        "layout": plan.layout,
        "attainment": plan.attainment,
        "mean_latency_s": plan.mean_latency_s,
        "placements_simulated": plan.num_simulated,
        "devices": [
            {
                "node": device.site.node,
                "device": device.site.device.name,
                "kind": device.site.device.kind,
                "group": device.group,
                "bytes": device.bytes_held,
                "memory_bytes": device.site.device.memory_bytes,
                "busy": device.busy,
                "models": list(device.models),
            }
            for device in plan.devices
        ],
        "models": [
            _model(model, index, replicas.get(model.name, ()), plan.rejected)
            for index, model in enumerate(plan.models)
        ],
        "shards": [
            {
                "model": replica.model,
                "strategy": replica.strategy,
                "stages": replica.degrees.stages,
                "tensor": replica.degrees.tensor,
                **_shard(replica, shard),
                "reason": replica.reason,
            }
            for replica in plan.replicas
            for shard in replica.shards
        ],
        "reasons": list(plan.reasons),
        "rejected": _rejected(plan.rejected),
    }


def _model(
    model: PlannedModel,
    index: int,
    replicas: Sequence[PlannedReplica],
    rejected: Sequence[Rejected],
) -> dict[str, object]:
    """One model's section: `rejected` are the placements with another share of its calls in time,
    and those in which it had no place (`attainment` null)."""
    shards = [(replica, shard) for replica in replicas for shard in replica.shards]
    held: dict[tuple[str, str], int] = {}
    for _, shard in shards:
        site = shard.site.node, shard.site.device.name
        held[site] = held.get(site, 0) + shard.bytes_held
    return {
        "model": model.name,
        "replicas": model.replicas,
        "attainment": model.attainment,
        "slo_s": model.slo_s,
        "rate_per_s": model.rate_per_s,
        "concurrency": model.concurrency,
        "facts": model.facts,
        "note": model.note,
        "weight_bytes": model.weight_bytes,
        "kv_bytes": model.kv_bytes,
        "activation_bytes": model.activation_bytes,
        "bytes": sum(held.values()),
        "placement": replicas[0].section() if replicas else {},
        "configured": _configured(model),
        "devices": [
            {"node": node, "device": device, "bytes": size} for (node, device), size in held.items()
        ],
        "shards": [_shard(replica, shard) for replica, shard in shards],
        "reasons": list(dict.fromkeys(replica.reason for replica in replicas)),
        "rejected": [
            *(
                _alternative(model, each, index)
                for each in rejected
                if index in dict(each.attained)
            ),
            *(_told(each) for each in rejected if each.no_room == index),
        ],
    }


def _configured(model: PlannedModel) -> dict[str, object] | None:
    """What the configuration had decided; None where it left the shape to the plan."""
    if model.fixed is None:
        return None
    return {
        "placement": str(model.fixed),
        "kept": not model.left_aside,
        "why": model.left_aside or "fixed by its configuration",
    }


def _shard(replica: PlannedReplica, shard: PlannedShard) -> dict[str, object]:
    return {
        "group": replica.group,
        "rank": shard.rank,
        "stage": shard.stage,
        "tensor_rank": shard.tensor_rank,
        "node": shard.site.node,
        "device": shard.site.device.name,
        "layers": [shard.layers.start, shard.layers.stop - 1],
        "weight_bytes": shard.weight_bytes,
        "kv_bytes": shard.kv_bytes,
        "activation_bytes": shard.activation_bytes,
        "bytes": shard.bytes_held,
    }


def _alternative(model: PlannedModel, rejected: Rejected, index: int) -> dict[str, object]:
    attained = dict(rejected.attained)[index]
    why = f"{attained:.1%} of its calls in time against {model.attainment:.1%}"
    if attained >= model.attainment:
        why += f"; of all calls: {rejected.why}"
    return {"what": rejected.what, "why": why, "attainment": attained}


def shortage_as_json(found: Shortage) -> dict[str, object]:
    return {
        "version": VERSION,
        "fits": False,
        "short": found.message,
        "more_devices": found.more_devices,
        "device_bytes": found.device_bytes,
        "fits_in_int8": found.fits_in_int8,
        "rejected": _rejected(found.rejected),
    }


def _rejected(rejected: Sequence[Rejected]) -> list[dict[str, object]]:
    return [_told(each) for each in rejected]


def _told(rejected: Rejected) -> dict[str, object]:
    return {"what": rejected.what, "why": rejected.why, "attainment": rejected.attainment}
