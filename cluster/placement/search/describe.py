"""A placement found by the search -> what is done, and why."""

from __future__ import annotations

from cluster.placement.search.candidate import Group
from cluster.placement.search.facts import Demand
from cluster.placement.search.fill import Filled
from cluster.placement.search.memory import alive_bytes, told_bytes, whole_bytes
from cluster.placement.search.plan import (
    Plan,
    PlannedDevice,
    PlannedModel,
    PlannedReplica,
    PlannedShard,
    Rejected,
)
from cluster.placement.search.stages import Cut
from cluster.units import human_bytes, human_seconds


def describe(
    best: Filled,
    demands: tuple[Demand, ...],
    rejected: tuple[Rejected, ...],
    num_simulated: int,
) -> Plan:
    """Shards, bytes and reasons of the best placement."""
    copies = [0] * len(demands)
    replicas: list[PlannedReplica] = []
    for index, models in enumerate(best.candidate.hosted):
        for model in models:
            copies[model] += 1
            replicas.append(_replica(best, demands[model], model, index))
    return Plan(
        layout=best.layout.name,
        attainment=best.found.attainment,
        mean_latency_s=best.found.mean_latency_s,
        devices=_devices(best, demands),
        models=tuple(
            PlannedModel(
                name=demand.name,
                replicas=copies[model],
                attainment=best.found.attained(model),
                slo_s=demand.slo_s,
                rate_per_s=demand.rate_per_s,
                concurrency=demand.concurrency,
                weight_bytes=demand.facts.weight_bytes,
                kv_bytes=demand.facts.kv_bytes * demand.concurrency,
                activation_bytes=alive_bytes(demand),
                facts=demand.facts.source,
                note=demand.facts.note,
                fixed=demand.fixed,
                left_aside=demand.left_aside,
            )
            for model, demand in enumerate(demands)
        ),
        replicas=tuple(replicas),
        reasons=(*_reasons(best, rejected), *_left_aside(demands)),
        rejected=rejected,
        num_simulated=num_simulated,
    )


def _replica(best: Filled, demand: Demand, model: int, index: int) -> PlannedReplica:
    group = best.layout.groups[index]
    found = best.cuts.of(group, model)
    assert isinstance(found, Cut)
    tensor = found.degrees.tensor
    shards = tuple(
        PlannedShard(
            rank=rank,
            stage=rank // tensor,
            tensor_rank=rank % tensor,
            site=site,
            layers=found.layers[rank // tensor],
            weight_bytes=found.weight_bytes[rank // tensor],
            kv_bytes=found.kv_bytes[rank // tensor],
            activation_bytes=found.activation_bytes[rank // tensor],
            bytes_held=found.bytes_held[rank // tensor],
        )
        for rank, site in enumerate(group.sites)
    )
    return PlannedReplica(
        model=demand.name,
        group=index,
        degrees=found.degrees,
        shards=shards,
        latency_s=found.total_s,
        requests_per_s=1.0 / found.slowest_s if found.slowest_s else 0.0,
        reason=_why_cut(demand, group, found),
        fixed=demand.kept,
    )


def _left_aside(demands: tuple[Demand, ...]) -> tuple[str, ...]:
    return tuple(
        f"{demand.name}: its configuration's placement ({demand.fixed}) is left aside: "
        f"{demand.left_aside}"
        for demand in demands
        if demand.left_aside
    )


def _why_cut(demand: Demand, group: Group, found: Cut) -> str:
    kept = ", as its configuration says" if demand.kept else ""
    if found.degrees.num_devices == 1:
        return f"whole: {told_bytes(demand)} on one device{kept}"
    most = max(range(found.degrees.stages), key=lambda stage: found.bytes_held[stage])
    each = human_bytes(found.bytes_held[most])
    if demand.kept:
        return f"{demand.kept}{kept}: {told_bytes(demand)}, {each} on each"
    memory = human_bytes(group.memory_bytes)
    cap = demand.facts.max_weight_bytes
    if cap and demand.facts.weight_bytes > cap:
        return (
            f"{found.degrees}: {human_bytes(demand.facts.weight_bytes)} of weights exceed the "
            f"{human_bytes(cap)} of max_memory_mb; {each} on each"
        )
    if whole_bytes(demand) > group.memory_bytes:
        return f"{found.degrees}: {told_bytes(demand)} exceed a device of {memory}; {each} on each"
    pace = human_seconds(found.slowest_s)
    return (
        f"{found.degrees}: {told_bytes(demand)}, {each} on each of "
        f"{found.degrees.num_devices} devices; a burst is worked off at one request in {pace}, "
        "and other models share the same devices"
    )


def _devices(best: Filled, demands: tuple[Demand, ...]) -> tuple[PlannedDevice, ...]:
    found: list[PlannedDevice] = []
    total_rate = sum(demand.rate_per_s for demand in demands)
    seconds = sum(best.found.num_requests) / total_rate if total_rate else 1.0
    for index, (group, models) in enumerate(
        zip(best.layout.groups, best.candidate.hosted, strict=True)
    ):
        cuts = [cut for cut in (best.cuts.of(group, m) for m in models) if isinstance(cut, Cut)]
        for rank, site in enumerate(group.sites):
            stage = rank // group.degrees.tensor
            found.append(
                PlannedDevice(
                    site=site,
                    group=index,
                    bytes_held=sum(cut.bytes_held[stage] for cut in cuts),
                    busy=min(1.0, best.found.busy_s[index] / seconds) if seconds else 0.0,
                    models=tuple(demands[model].name for model in models),
                )
            )
    return tuple(found)


def _reasons(best: Filled, rejected: tuple[Rejected, ...]) -> tuple[str, ...]:
    latency = human_seconds(best.found.mean_latency_s)
    reasons = [
        f"{best.layout.name}: {best.found.attainment:.1%} of the simulated calls in time, "
        f"{latency} on average"
    ]
    # What is said of one speed's own devices compares with nothing outside them.
    tried = [r for r in rejected if r.attainment is not None and not r.what.startswith("[")]
    if tried:
        second = max(tried, key=lambda other: other.attainment or 0.0)
        reasons.append(f"the best of {len(tried) + 1} layouts; next: {second.what}, {second.why}")
    alone = [r for r in rejected if r.what.endswith(" x single") and r.what[0] != "["]
    if alone and best.layout.size > 1:
        reasons.append(f"replication alone ({alone[0].what}): {alone[0].why}")
    late = [m for m in best.models if best.found.unserved[m]]
    if late:
        reasons.append(
            f"{len(late)} of {len(best.models)} models have late calls: no further copy "
            "fits, or none helps"
        )
    return tuple(reasons)
