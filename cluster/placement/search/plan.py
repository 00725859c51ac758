"""A placement as it is told to people and machines: devices, shards, bytes, reasons."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.placement.search.facts import Fixed, Source
from cluster.placement.search.stages import Degrees
from cluster.topology import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """One process's part of a replica. `layers`: the embedding comes with the first, the head with
    the last. `bytes_held`: weights, caches, activations together."""

    rank: int
    stage: int
    tensor_rank: int
    site: Site
    layers: range
    weight_bytes: int
    kv_bytes: int
    activation_bytes: int
    bytes_held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedReplica:
    """A serving copy of a model on a group. `latency_s`: of a request that waits for nobody.
    `fixed`: the shape that its configuration had decided."""

    model: str
    group: int
    degrees: Degrees
    shards: tuple[PlannedShard, ...]
    latency_s: float
    requests_per_s: float
    reason: str
    fixed: Fixed | None = None

    @property
    def strategy(self) -> str:
        return self.fixed.strategy if self.fixed is not None else self.degrees.strategy

    def section(self) -> dict[str, object]:
        """Its `placement:` section in a Serve config file, with every shard's node and device: what
        is reserved for it is what was planned."""
        section: dict[str, object] = {"strategy": self.strategy}
        if self.degrees.num_devices == 1:
            return section if self.strategy == "data" else {"strategy": "single"}
        if self.degrees.stages == 1:
            section["shards"] = self.degrees.tensor
            section["devices"] = [told_site(shard.site) for shard in self.shards]
        else:
            section["shard_map"] = {
                f"layers.{stage[0].layers.start}-{stage[0].layers.stop - 1}": _stage(stage)
                for stage in self._stages()
            }
            if self.degrees.tensor > 1:
                section["tensor"] = self.degrees.tensor
        labels = {shard.site.node: dict(shard.site.labels) for shard in self.shards}
        if any(labels.values()):
            section["nodes"] = {node: found for node, found in labels.items() if found}
        return section

    def _stages(self) -> list[tuple[PlannedShard, ...]]:
        return [
            tuple(shard for shard in self.shards if shard.stage == stage)
            for stage in range(self.degrees.stages)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """`attainment`: the share of its simulated calls answered within `slo_s`. Bytes are those of
    one copy whole: caches of `concurrency` sequences, activations of what is computed at once.
    `fixed`: the shape that its configuration had decided; `left_aside`: why the plan has another.
    """

    name: str
    replicas: int
    attainment: float
    slo_s: float
    rate_per_s: float
    concurrency: int
    weight_bytes: int
    kv_bytes: int
    activation_bytes: int
    facts: Source
    note: str = ""
    fixed: Fixed | None = None
    left_aside: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDevice:
    """`busy`: the share of the simulated time that it computed."""

    site: Site
    group: int
    bytes_held: int
    busy: float
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A placement that was looked at. `attainment` is None where it could not be; `attained`: of
    each model that was placed so, by its index; `no_room`: the model that had no place."""

    what: str
    why: str
    attainment: float | None = None
    attained: tuple[tuple[int, float], ...] = ()
    no_room: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`attainment` is simulated, on a drawn trace of the demand."""

    layout: str
    attainment: float
    mean_latency_s: float
    devices: tuple[PlannedDevice, ...]
    models: tuple[PlannedModel, ...]
    replicas: tuple[PlannedReplica, ...]
    reasons: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    num_simulated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """Why there is no plan, and the smallest changes with which there would be one. `more_devices`
    of `device_bytes` each; None where no number of them helps."""

    message: str
    more_devices: int | None
    device_bytes: int
    fits_in_int8: bool
    rejected: tuple[Rejected, ...]


def _stage(shards: tuple[PlannedShard, ...]) -> object:
    if len(shards) == 1:
        return told_site(shards[0].site)
    return {
        "node": shards[0].site.node,
        "devices": [_device(shard.site) for shard in shards],
    }


def told_site(site: Site) -> str:
    """Node and device, as `placement.devices` takes them."""
    return f"{site.node}/{_device(site)}"


def _device(site: Site) -> str:
    """As a configuration names it: a CPU slot has no number there."""
    return "cpu" if site.device.kind == "cpu" else site.device.name
