"""What a Serve config asks of Ray: every replica with the bundles that it is made of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import yaml

from cluster.config.language.settings import LanguageConfig
from cluster.config.placement import PlacementConfig
from cluster.config.serve_file import IMPORT_PATH
from cluster.config.squadron import SquadronConfig
from cluster.config.variant import VariantConfig
from cluster.config.yaml_file import check_section

DOOR_CPUS = 0.1
_MIB = 1 << 20
_OF_LANGUAGE = {"pack": "PACK", "strict_pack": "STRICT_PACK", "spread": "SPREAD"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What must be free on one node at once. `memory_bytes` of the pod: what Ray reserves, or what
    the config says that the process will hold. `labels` the node must carry."""

    cpus: float = 0.0
    gpus: float = 0.0
    memory_bytes: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        told = [f"{self.cpus:g} CPU", f"{self.gpus:g} GPU"]
        if 0 < self.memory_bytes < math.inf:
            told.append(f"{self.memory_bytes / _MIB:.0f} MiB")
        told += [f"{key}={value}" for key, value in self.labels.items()]
        return ", ".join(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Replicas of one deployment. `bundles` of each lie as `strategy` says, in Ray's words."""

    name: str
    bundles: tuple[Bundle, ...]
    count: int
    strategy: str = "PACK"

    @property
    def gpus(self) -> float:
        return sum(bundle.gpus for bundle in self.bundles)

    @property
    def cpus(self) -> float:
        return sum(bundle.cpus for bundle in self.bundles)

    @property
    def memory_bytes(self) -> float:
        return sum(bundle.memory_bytes for bundle in self.bundles)

    def __str__(self) -> str:
        if len(self.bundles) == 1:
            return f"each {self.bundles[0]}"
        sizes = dict.fromkeys(map(str, self.bundles))
        return f"each {len(self.bundles)} bundles ({'; '.join(sizes)}), {self.strategy}"


def configs_in(text: str) -> list[SquadronConfig]:
    """Ours among a Serve config's applications. Raises: ConfigError for a wrong one."""
    return [
        check_section(app.get("args") or {}, SquadronConfig, source="serveConfigV2")
        for app in (yaml.safe_load(text) or {}).get("applications") or []
        if app.get("import_path") == IMPORT_PATH
    ]


def door_needs(config: SquadronConfig, nodes: int) -> Need:
    return Need(
        name="gateway",
        bundles=(Bundle(cpus=DOOR_CPUS),),
        count=config.server.doors_per_node * nodes,
    )


def largest_loads(config: SquadronConfig) -> Iterator[dict[str, int]]:
    """Replicas by variant, the most that may be asked for: all at their largest, or where a budget
    forbids that, each one alone with the others at their smallest."""
    most = {
        name: variant.autoscaling.max_replicas if variant.autoscaling else variant.replicas
        for name, variant in config.variants.items()
    }
    budget = config.autoscaling.max_cost
    scaled = {name: v.autoscaling for name, v in config.variants.items() if v.autoscaling}
    if budget is None or sum(most[name] * s.cost for name, s in scaled.items()) <= budget:
        yield most
        return
    least = {**most, **{name: section.min_replicas for name, section in scaled.items()}}
    spent = sum(section.min_replicas * section.cost for section in scaled.values())
    for name, section in scaled.items():
        more = max(0, int((budget - spent) // section.cost))
        yield {**least, name: min(most[name], section.min_replicas + more)}


def variant_need(name: str, variant: VariantConfig, count: int, *, has_gpus: bool) -> Need:
    """`has_gpus`: whether Ray's cluster will have any, which a language model then takes.

    A sharded placement that the planner has yet to cut (`auto`) counts with its leader alone.
    """
    resources = variant.resources
    own = Bundle(
        cpus=float(resources.num_cpus),
        gpus=_gpus(variant, has_gpus),
        memory_bytes=float(resources.memory_bytes or 0),
    )
    llm, placement = variant.llm, variant.placement
    if llm is not None and llm.num_devices > 1:
        bundles = (
            Bundle(cpus=own.cpus, gpus=1.0, memory_bytes=own.memory_bytes),
            *(Bundle(gpus=1.0) for _ in range(llm.num_devices - 1)),
        )
        return Need(name=name, bundles=bundles, count=count, strategy=_OF_LANGUAGE[llm.placement])
    if placement.is_sharded:
        leader = Bundle(cpus=own.cpus, memory_bytes=own.memory_bytes)
        return Need(
            name=name,
            bundles=(leader, *_shards(placement)),
            count=count,
            strategy=_strategy(placement),
        )
    kept = _kept_on_cpu(llm) if own.gpus == 0 else 0
    whole = Bundle(cpus=own.cpus, gpus=own.gpus, memory_bytes=max(own.memory_bytes, float(kept)))
    return Need(name=name, bundles=(whole,), count=count)


def _gpus(variant: VariantConfig, has_gpus: bool) -> float:
    """What is written, else a whole one for a model that is bound to a GPU or finds one."""
    if variant.resources.num_gpus is not None:
        return variant.resources.num_gpus
    is_language = variant.llm is not None and variant.device != "cpu" and has_gpus
    return 1.0 if variant.device.startswith("cuda") or is_language else 0.0


def _kept_on_cpu(llm: LanguageConfig | None) -> int:
    return llm.kv_cache_bytes if llm is not None else 0


def _shards(placement: PlacementConfig) -> Iterator[Bundle]:
    """One each; those that name the same GPU share it."""
    if placement.shard_map:
        sites = [each for each in placement.shard_map.values() for _ in range(placement.tensor)]
        devices = [site.device for site in sites]
        labels = [site.labels for site in sites]
    else:
        devices = list(placement.devices) or ["cpu"] * (placement.num_shards or 0)
        labels = [{} for _ in devices]
    for device, wanted in zip(devices, labels, strict=True):
        yield Bundle(
            cpus=placement.num_cpus,
            gpus=1.0 / devices.count(device) if device.startswith("cuda") else 0.0,
            memory_bytes=(placement.max_memory_mb or 0) * _MIB if device == "cpu" else 0.0,
            labels=wanted,
        )


def _strategy(placement: PlacementConfig) -> str:
    """Slices of a layer talk twice a layer and stay on one node; stages may be apart."""
    if placement.bundles != "auto":
        return placement.bundles
    return "STRICT_PACK" if placement.strategy == "tensor" else "PACK"
