"""A model's layers cut into stages and shards: who holds what, checked before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import inf

from cluster.config.placement import PlacementConfig, ShardSite
from cluster.errors import ConfigError
from cluster.placement.shard_map import read_shard_map

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class LayeredModel:
    """What a cut must know of a model that is a run of layers between an embedding and a head.

    `*_bytes` are those of the weights as they are computed with; `*_cost` is in any unit of work
    (a look-up in an embedding table is none). `splits`: what a tensor degree must divide, by name.
    `can_be_streamed`: layers beyond a memory cap can be brought in for their turn; else a stage is
    resident as a whole. `vocabulary_size` and `max_tokens` bound what a language model takes; 0
    says nothing.
    """

    num_layers: int
    layer_bytes: tuple[int, ...]
    embedding_bytes: int = 0
    head_bytes: int = 0
    layer_cost: tuple[float, ...] = ()
    embedding_cost: float = 0.0
    head_cost: float = 0.0
    splits: tuple[tuple[str, int], ...] = ()
    can_be_split: bool = True
    can_be_streamed: bool = True
    vocabulary_size: int = 0
    max_tokens: int = 0

    @property
    def weight_bytes(self) -> int:
        return sum(self.layer_bytes) + self.embedding_bytes + self.head_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One process's part: a run of layers (the embedding comes with the first, the head with the
    last), and which of `tensor_degree` slices of it. `node`: see `ShardSite`."""

    rank: int
    stage: int
    num_stages: int
    tensor_rank: int
    tensor_degree: int
    layers: range
    device: str
    node: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    weight_bytes: int = 0

    @property
    def has_embedding(self) -> bool:
        return self.stage == 0

    @property
    def has_head(self) -> bool:
        return self.stage == self.num_stages - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The shards of one replica by rank, stage by stage. `micro_batches`: how many may be in
    flight; 1 is layer placement."""

    shards: tuple[Shard, ...]
    num_stages: int
    tensor_degree: int
    micro_batches: int
    reason: str = ""

    def stage(self, index: int) -> tuple[Shard, ...]:
        return tuple(shard for shard in self.shards if shard.stage == index)


def lay_out(config: PlacementConfig, model: LayeredModel) -> Layout:
    """The layout that a placement section asks for.

    Raises: ConfigError naming layer and device for a map that does not fit the model, a degree that
    divides something unevenly, more stages than layers, too little memory.
    """
    tensor = (config.shards or 1) if config.strategy == "tensor" else config.tensor
    reason = f"{config.strategy} as configured"
    if config.shard_map:
        places = [(text, site.device) for text, site in config.shard_map.items()]
        runs = read_shard_map(places, model.num_layers)
        sites = [each for site in config.shard_map.values() for each in _members(site, tensor)]
    else:
        num_shards = config.num_shards
        if num_shards is None:
            num_shards, reason = fewest_shards(config, model)
        num_stages = 1 if config.strategy == "tensor" else num_shards // tensor
        runs = cut_layers(
            model, num_stages, by_cost=config.strategy == "pipeline", max_bytes=_cap(config, model)
        )
        devices = config.devices or ("cpu",) * num_shards
        check_devices(devices, num_shards, reason)
        sites = [ShardSite.of(device) for device in devices]
    check_tensor_degree(model, tensor, sites)
    check_slices_meet(runs, tensor, sites)
    shards = tuple(
        Shard(
            rank=stage * tensor + slice_,
            stage=stage,
            num_stages=len(runs),
            tensor_rank=slice_,
            tensor_degree=tensor,
            layers=run,
            device=sites[stage * tensor + slice_].device,
            node=sites[stage * tensor + slice_].node,
            labels=_labels(config, sites[stage * tensor + slice_]),
            weight_bytes=run_bytes(model, run) // tensor,
        )
        for stage, run in enumerate(runs)
        for slice_ in range(tensor)
    )
    check_memory(config, model, shards)
    in_flight = config.micro_batches if config.strategy in ("pipeline", "auto") else 1
    return Layout(
        shards=shards,
        num_stages=len(runs),
        tensor_degree=tensor,
        micro_batches=in_flight if len(runs) > 1 else 1,
        reason=reason,
    )


def _members(site: ShardSite, tensor: int) -> list[ShardSite]:
    devices = site.devices or (site.device,) * tensor
    return [ShardSite(device=d, node=site.node, labels=site.labels) for d in devices]


def _labels(config: PlacementConfig, site: ShardSite) -> dict[str, str]:
    return {**config.nodes.get(site.node, {}), **site.labels}


def run_bytes(model: LayeredModel, run: range) -> int:
    """The weights of a run of layers, with the embedding and the head where it has them."""
    total = sum(model.layer_bytes[run.start : run.stop])
    total += model.embedding_bytes if run.start == 0 else 0
    return total + (model.head_bytes if run.stop == model.num_layers else 0)


def _cap(config: PlacementConfig, model: LayeredModel) -> float:
    """Bytes of a stage. What is streamed is checked layer by layer."""
    if config.max_memory_mb is None or model.can_be_streamed:
        return inf
    tensor = (config.shards or 1) if config.strategy == "tensor" else config.tensor
    return config.max_memory_mb * MIB * tensor


def cut_layers(
    model: LayeredModel, num_stages: int, *, by_cost: bool, max_bytes: float = inf
) -> tuple[range, ...]:
    """Contiguous runs whose dearest one is as cheap as can be, the others as even as that allows:
    by work for a pipeline, whose pace is its slowest stage's, by bytes otherwise; none above
    `max_bytes` where that is possible.

    Raises: ConfigError for more stages than layers.
    """
    if num_stages > model.num_layers:
        raise ConfigError(
            f"{num_stages} stages need as many layers; the model has layers 0 to "
            f"{model.num_layers - 1}",
            key="placement.shards",
            value=str(num_stages),
            allowed=f"1 to {model.num_layers} stages",
        )
    costs = list(model.layer_cost if by_cost and model.layer_cost else model.layer_bytes)
    costs = [float(cost) for cost in costs]
    costs[0] += model.embedding_cost if by_cost else model.embedding_bytes
    costs[-1] += model.head_cost if by_cost else model.head_bytes

    def fits(start: int, stop: int) -> bool:
        return max_bytes == inf or run_bytes(model, range(start, stop)) <= max_bytes

    found = _bounds(costs, num_stages, fits)
    if found is None:
        # Which stage is too large is told when the memory is checked.
        found = _bounds(costs, num_stages, lambda start, stop: True)
    bounds = [0, *(found or ()), len(costs)]
    return tuple(range(start, stop) for start, stop in pairwise(bounds))


def _bounds(
    costs: Sequence[float], parts: int, fits: Callable[[int, int], bool]
) -> list[int] | None:
    """Where to cut so that the dearest part is as cheap as can be, and the others are as even as
    that allows; None when no cut has only parts that fit."""
    sums = [0.0, *accumulate(costs)]
    found = _best_bounds(sums, parts, fits, max)
    if found is None:
        return None
    dearest = max(sums[stop] - sums[start] for start, stop in pairwise([0, *found, len(costs)]))

    def is_cheap(start: int, stop: int) -> bool:
        return sums[stop] - sums[start] <= dearest and fits(start, stop)

    return _best_bounds(sums, parts, is_cheap, lambda before, cost: before + cost * cost)


def _best_bounds(
    sums: Sequence[float],
    parts: int,
    fits: Callable[[int, int], bool],
    together: Callable[[float, float], float],
) -> list[int] | None:
    """By dynamic programming over the first `n` layers in `k` parts. `together`: what parts cost,
    of the cost of those before and the last one's."""
    count = len(sums) - 1
    best = [[together(0.0, each) if fits(0, n) else inf for n, each in enumerate(sums)]]
    choice: list[list[int]] = [[0] * (count + 1)]
    for k in range(1, parts):
        row, chosen = [float("inf")] * (count + 1), [0] * (count + 1)
        for n in range(k + 1, count + 1):
            for cut in range(k, n):
                worst = together(best[k - 1][cut], sums[n] - sums[cut])
                if worst < row[n] and fits(cut, n):
                    row[n], chosen[n] = worst, cut
        best.append(row)
        choice.append(chosen)
    if best[-1][count] == inf:
        return None
    bounds: list[int] = []
    end = count
    for k in range(parts - 1, 0, -1):
        end = choice[k][end]
        bounds.append(end)
    return bounds[::-1]


def check_devices(devices: Sequence[str], num_shards: int, reason: str) -> None:
    """Raises: ConfigError when shards were counted that have no device."""
    if len(devices) < num_shards:
        raise ConfigError(
            f"placement.devices names {len(devices)} ({', '.join(devices)}); {num_shards} shards "
            f"need one each ({reason})",
            key="placement.devices",
            value=", ".join(devices),
            allowed=f"at least {num_shards} devices, or none for the planner to choose",
        )


def check_slices_meet(runs: Sequence[range], tensor: int, sites: Sequence[ShardSite]) -> None:
    """Raises: ConfigError for slices of one stage on several nodes: they talk twice a layer."""
    for stage, run in enumerate(runs):
        nodes = dict.fromkeys(site.node for site in sites[stage * tensor : (stage + 1) * tensor])
        if len(nodes) > 1:
            said = ", ".join(map(str, sites[stage * tensor : (stage + 1) * tensor]))
            raise ConfigError(
                f"layers {run.start} to {run.stop - 1}: their {tensor} slices are on {said}; the "
                "slices of a stage share one node, stages may be on several",
                key="placement.devices",
                value=said,
                allowed="one node for each stage",
            )


def check_tensor_degree(model: LayeredModel, degree: int, sites: Sequence[ShardSite]) -> None:
    """Raises: ConfigError naming what the degree does not divide, the layers and the devices."""
    if degree == 1:
        return
    devices = ", ".join(dict.fromkeys(site.device for site in sites))
    where = f"layers 0 to {model.num_layers - 1} on {devices}"
    if not model.can_be_split:
        raise ConfigError(
            f"tensor degree {degree} ({where}): this model's graph is cut between operators only",
            key="placement.tensor",
            value=str(degree),
            allowed="1",
        )
    for name, size in model.splits:
        if size % degree:
            allowed = [n for n in range(1, 65) if all(s % n == 0 for _, s in model.splits)]
            raise ConfigError(
                f"tensor degree {degree} does not divide the {size} {name} of {where}; allowed: "
                f"{', '.join(map(str, allowed))}",
                key="placement.tensor",
                value=str(degree),
                allowed=", ".join(map(str, allowed)),
            )


def check_memory(config: PlacementConfig, model: LayeredModel, shards: Sequence[Shard]) -> None:
    """Raises: ConfigError naming the layer and the device that cannot hold it."""
    if config.max_memory_mb is None:
        return
    cap = config.max_memory_mb * MIB
    for shard in shards:
        if not model.can_be_streamed:
            _check_whole(config.max_memory_mb, model, shard)
            continue
        # While one layer computes, the next one is brought in; embedding and head stay.
        staying = run_bytes(model, shard.layers) - sum(
            model.layer_bytes[shard.layers.start : shard.layers.stop]
        )
        for layer in shard.layers:
            following = layer + 1 if layer + 1 in shard.layers else shard.layers.start
            pair = model.layer_bytes[layer]
            pair += model.layer_bytes[following] if following != layer else 0
            needed = (staying + pair) // shard.tensor_degree
            if needed > cap:
                raise ConfigError(
                    f"layer {layer} on {shard.device} (shard {shard.rank}): needs "
                    f"{needed / MIB:.0f} MiB with the next layer, embedding and head beside it; "
                    f"max_memory_mb is {config.max_memory_mb:g}",
                    key="placement.max_memory_mb",
                    value=f"{config.max_memory_mb:g}",
                    allowed=f">= {needed / MIB:.0f}, or more shards",
                )


def _check_whole(cap_mb: float, model: LayeredModel, shard: Shard) -> None:
    held_mb = run_bytes(model, shard.layers) / MIB
    if held_mb > cap_mb:
        run = shard.layers
        raise ConfigError(
            f"layers {run.start} to {run.stop - 1} on {shard.device} (shard {shard.rank}): hold "
            f"{held_mb:.1f} MiB, all of them at once: a graph's layers are not brought in for "
            f"their turn; max_memory_mb is {cap_mb:g}",
            key="placement.max_memory_mb",
            value=f"{cap_mb:g}",
            allowed=f">= {held_mb:.1f}, or more shards",
        )


def fewest_shards(config: PlacementConfig, model: LayeredModel) -> tuple[int, str]:
    """The count of stages of `auto` and the reason: a cut costs a hop, so as few as fit."""
    if config.max_memory_mb is None:
        return config.tensor, "auto: no max_memory_mb, so nothing asks for a cut"
    cap = config.max_memory_mb * MIB
    for stages in range(1, model.num_layers + 1):
        runs = cut_layers(model, stages, by_cost=False)
        most = max(run_bytes(model, run) for run in runs) / config.tensor
        if most <= cap:
            reason = f"auto: {stages} stages hold at most {most / MIB:.0f} MiB each"
            return stages * config.tensor, reason
    smallest = max(run_bytes(model, range(n, n + 1)) for n in range(model.num_layers))
    layer = max(range(model.num_layers), key=lambda n: run_bytes(model, range(n, n + 1)))
    raise ConfigError(
        f"layer {layer} alone takes {smallest / config.tensor / MIB:.0f} MiB; max_memory_mb is "
        f"{config.max_memory_mb:g} on {', '.join(config.devices) or 'cpu'}",
        key="placement.max_memory_mb",
        value=f"{config.max_memory_mb:g}",
        allowed=f">= {smallest / config.tensor / MIB:.0f}",
    )
