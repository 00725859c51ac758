"""How long a model takes on a group of equal devices, in stages and slices, and what each holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from math import inf

from cluster.placement.search.facts import Fixed, LayerFacts, ModelFacts
from cluster.topology import Device, Link
from cluster.units import human_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Degrees:
    """`stages` of `tensor` slices each."""

    stages: int = 1
    tensor: int = 1

    @property
    def num_devices(self) -> int:
        return self.stages * self.tensor

    @property
    def strategy(self) -> str:
        if self.num_devices == 1:
            return "single"
        return "tensor" if self.stages == 1 else "pipeline"

    def __str__(self) -> str:
        if self.stages > 1 and self.tensor > 1:
            return f"pipeline {self.stages} x tensor {self.tensor}"
        return "single" if self.num_devices == 1 else f"{self.strategy} {self.num_devices}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The devices of a group, as far as time depends on them. `inside` joins the slices of a
    stage, `between` the stages."""

    device: Device
    inside: Link
    between: Link
    handover_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One model on one group. Bytes are those of each device of a stage: `bytes_held` is weights,
    caches of all sequences and activations together. `is_in_turn`: no request enters before the
    one before it has left the last stage."""

    degrees: Degrees
    layers: tuple[range, ...]
    stage_s: tuple[float, ...]
    weight_bytes: tuple[int, ...]
    kv_bytes: tuple[int, ...]
    activation_bytes: tuple[int, ...]
    bytes_held: tuple[int, ...]
    is_in_turn: bool = False

    @property
    def total_s(self) -> float:
        return sum(self.stage_s)

    @property
    def slowest_s(self) -> float:
        """Between two requests."""
        return self.total_s if self.is_in_turn else max(self.stage_s)


@lru_cache(maxsize=65536)
def cut(
    model: ModelFacts,
    degrees: Degrees,
    ground: Ground,
    concurrency: int = 1,
    fixed: Fixed | None = None,
) -> Cut | str:
    """The cut whose slowest stage is the fastest, or the one that is `fixed`; or why there is none.

    Source: the dynamic program over stages of AlpaServe (OSDI'23, section 4.1), which is Alpa's.
    """
    refused = why_not(model, degrees, fixed)
    if refused:
        return refused
    seconds = _seconds(model, degrees.tensor, ground)
    told = fixed.runs if fixed is not None else ()
    runs = told or _runs(seconds, len(model.layers), degrees.stages)
    sums = [0.0, *accumulate(seconds)]
    hop_s = ground.handover_s
    stage_s: list[float] = []
    for index, run in enumerate(runs):
        begin, end = _parts(run, len(model.layers))
        is_last = index == len(runs) - 1
        leaves = model.layers[run.stop - 1].activation_bytes
        hop = 0.0 if is_last else hop_s + ground.between.seconds(leaves)
        hop += 0.0 if is_last else (model.num_passes - 1) * (hop_s + ground.between.latency_s)
        stage_s.append(sums[end] - sums[begin] + hop)
    wholes = [sum(part.weight_bytes for part in _of(model, run)) for run in runs]
    wholes[-1] += model.tied_bytes if degrees.stages > 1 else 0
    weights = [-(-whole // degrees.tensor) for whole in wholes]
    if model.max_weight_bytes and max(weights) > model.max_weight_bytes:
        cap, most = human_bytes(model.max_weight_bytes), human_bytes(max(weights))
        return f"{degrees}: {most} of weights on a device, max_memory_mb allows {cap}"
    caches = [
        -(-concurrency * sum(part.kv_bytes for part in _of(model, run)) // degrees.tensor)
        for run in runs
    ]
    at_once = model.num_computed(concurrency)
    moving = [at_once * alive(_of(model, run), degrees.tensor) for run in runs]
    return Cut(
        degrees=degrees,
        layers=runs,
        stage_s=tuple(stage_s),
        weight_bytes=tuple(weights),
        kv_bytes=tuple(caches),
        activation_bytes=tuple(moving),
        bytes_held=tuple(map(sum, zip(weights, caches, moving, strict=True))),
        is_in_turn=fixed is not None and fixed.is_in_turn,
    )


def why_not(model: ModelFacts, degrees: Degrees, fixed: Fixed | None = None) -> str:
    """Why a model cannot be cut so, or must not; empty when it can."""
    if fixed is not None:
        if (fixed.stages, fixed.tensor) != (degrees.stages, degrees.tensor):
            return f"its configuration says {fixed}"
        if fixed.runs and fixed.runs[-1].stop != len(model.layers):
            return f"its shard map has {fixed.runs[-1].stop} layers, it has {len(model.layers)}"
    if degrees.stages > len(model.layers):
        return f"{degrees.stages} stages need as many layers; it has {len(model.layers)}"
    if degrees.tensor == 1:
        return ""
    if not model.can_be_split:
        return f"tensor {degrees.tensor}: this model's graph is cut between operators only"
    for name, size in model.splits:
        if size % degrees.tensor:
            return f"tensor {degrees.tensor} does not divide its {size} {name}"
    return ""


def _of(model: ModelFacts, run: range) -> tuple[LayerFacts, ...]:
    begin, end = _parts(run, len(model.layers))
    return model.parts[begin:end]


def _parts(run: range, num_layers: int) -> tuple[int, int]:
    """A run of layers as a slice of `parts`: the first has the embedding, the last the head."""
    begin = 0 if run.start == 0 else run.start + 1
    return begin, run.stop + (2 if run.stop == num_layers else 1)


def alive(parts: tuple[LayerFacts, ...], tensor: int) -> int:
    """The most that is alive at once for a request: what comes in and what goes out, which every
    slice has whole, and what is computed in between, of which each has its part."""
    found = 0
    for part in parts:
        passing = 2 * part.activation_bytes
        found = max(found, passing + -(-max(0, part.working_bytes - passing) // tensor))
    return found


def _seconds(model: ModelFacts, tensor: int, ground: Ground) -> list[float]:
    device = ground.device
    alone = [
        max(
            part.flops / device.flops_per_s,
            model.num_passes * _read(model, part) / device.memory_bytes_per_s,
        )
        if part.flops
        else 0.0
        for part in model.parts
    ]
    measured_s = dict(model.measured_s).get(device.kind)
    total_s = sum(alone)
    scale = measured_s / total_s if measured_s is not None and total_s else 1.0
    if tensor == 1:
        return [scale * seconds for seconds in alone]
    return [
        scale * seconds / tensor
        + part.num_collectives * _all_reduce_s(part, tensor, ground.inside, model.num_passes)
        for seconds, part in zip(alone, model.parts, strict=True)
    ]


def _read(model: ModelFacts, part: LayerFacts) -> int:
    """Weights that one pass reads: a head that is tied reads the embedding's."""
    return part.weight_bytes or (model.tied_bytes if part is model.head else 0)


def _all_reduce_s(part: LayerFacts, tensor: int, link: Link, num_passes: int) -> float:
    """A ring: each device sends 2 (n - 1) / n of the bytes in 2 (n - 1) messages, once a pass."""
    steps = 2 * (tensor - 1)
    bytes_s = steps / tensor * part.activation_bytes / link.bytes_per_s
    return num_passes * steps * link.latency_s + bytes_s


def _runs(seconds: list[float], num_layers: int, stages: int) -> tuple[range, ...]:
    costs = seconds[1:-1]
    costs[0] += seconds[0]
    costs[-1] += seconds[-1]
    sums = [0.0, *accumulate(costs)]
    best = list(sums)
    chosen: list[list[int]] = []
    for k in range(1, stages):
        row, cuts = [inf] * (num_layers + 1), [0] * (num_layers + 1)
        for n in range(k + 1, num_layers + 1):
            for at in range(k, n):
                worst = max(best[at], sums[n] - sums[at])
                if worst < row[n]:
                    row[n], cuts[n] = worst, at
        best = row
        chosen.append(cuts)
    bounds = [num_layers]
    for cuts in reversed(chosen):
        bounds.append(cuts[bounds[-1]])
    bounds.append(0)
    return tuple(range(start, stop) for start, stop in pairwise(bounds[::-1]))
