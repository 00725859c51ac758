"""A plan for machines: one JSON object."""

from __future__ import annotations

from cluster.placement.search.plan import Plan, Rejected, Shortage


def as_json(plan: Plan) -> dict[str, object]:
    """`placement` is what to write into a variant's section; `attainment` is simulated."""
    sections: dict[str, dict[str, object]] = {}
    for replica in plan.replicas:
        sections.setdefault(replica.model, replica.section())
    return {
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
            {
                "model": model.name,
                "replicas": model.replicas,
                "attainment": model.attainment,
                "slo_s": model.slo_s,
                "rate_per_s": model.rate_per_s,
                "concurrency": model.concurrency,
                "weight_bytes": model.weight_bytes,
                "kv_bytes": model.kv_bytes,
                "activation_bytes": model.activation_bytes,
                "facts": model.facts,
                "note": model.note,
                "placement": sections.get(model.name, {}),
            }
            for model in plan.models
        ],
        "shards": [
            {
                "model": replica.model,
                "group": replica.group,
                "strategy": replica.degrees.strategy,
                "stages": replica.degrees.stages,
                "tensor": replica.degrees.tensor,
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
                "reason": replica.reason,
            }
            for replica in plan.replicas
            for shard in replica.shards
        ],
        "reasons": list(plan.reasons),
        "rejected": _rejected(plan.rejected),
    }


def shortage_as_json(found: Shortage) -> dict[str, object]:
    return {
        "fits": False,
        "short": found.message,
        "more_devices": found.more_devices,
        "device_bytes": found.device_bytes,
        "fits_in_int8": found.fits_in_int8,
        "rejected": _rejected(found.rejected),
    }


def _rejected(rejected: tuple[Rejected, ...]) -> list[dict[str, object]]:
    return [{"what": r.what, "why": r.why, "attainment": r.attainment} for r in rejected]
