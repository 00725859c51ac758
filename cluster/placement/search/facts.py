"""What the planner must know of a model, and of the calls it gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["measured", "estimated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """One layer of one request. `activation_bytes` leave it; `working_bytes`: the widest set of
    tensors alive at once while it computes, 0 where only what comes in and what leaves is known;
    `kv_bytes` stay while a sequence is generated; `num_collectives`: all-reduces of its output when
    it is cut by columns and rows."""

    flops: float
    weight_bytes: int
    activation_bytes: int = 0
    working_bytes: int = 0
    kv_bytes: int = 0
    num_collectives: int = 2


NOTHING = LayerFacts(flops=0.0, weight_bytes=0, num_collectives=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A run of layers between an embedding and a head.

    `kind` names this set of facts: models of one kind have equal facts. `measured_s`: what one
    request takes on one device of (kind of device, seconds); FLOPs then only say how that divides
    over the layers. `splits`: what a tensor degree must divide, by name. `weight_bits`: of most
    weights. `tied_bytes`: the head's weights where they are the embedding's, so that they are held
    twice as soon as the two are apart. `num_passes`: how often a request goes through all layers,
    once and for each token it generates. `max_weight_bytes`: that one device may hold, 0 for all
    that it has room for.
    """

    kind: str
    layers: tuple[LayerFacts, ...]
    embedding: LayerFacts = NOTHING
    head: LayerFacts = NOTHING
    measured_s: tuple[tuple[str, float], ...] = ()
    splits: tuple[tuple[str, int], ...] = ()
    can_be_split: bool = True
    weight_bits: int = 16
    tied_bytes: int = 0
    num_passes: int = 1
    max_weight_bytes: int = 0
    note: str = ""

    @property
    def source(self) -> Source:
        return "measured" if self.measured_s else "estimated"

    @property
    def parts(self) -> tuple[LayerFacts, ...]:
        return (self.embedding, *self.layers, self.head)

    @property
    def weight_bytes(self) -> int:
        return sum(part.weight_bytes for part in self.parts)

    @property
    def kv_bytes(self) -> int:
        """The cache of one sequence."""
        return sum(part.kv_bytes for part in self.parts)

    def num_computed(self, concurrency: int) -> int:
        """Requests whose activations are alive at once. Sequences that are generated are read in
        one at a time, and a step of them all is narrow; everything else is a batch."""
        return 1 if self.num_passes > 1 else concurrency

    @property
    def flops(self) -> float:
        return sum(part.flops for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """The shape of a model's replicas that its configuration has decided: `stages` of `tensor`
    slices. `runs`: the layers of each stage where a map says them."""

    strategy: str
    stages: int = 1
    tensor: int = 1
    runs: tuple[range, ...] = ()

    @property
    def num_devices(self) -> int:
        return self.stages * self.tensor

    @property
    def is_in_turn(self) -> bool:
        """One request at a time goes through all stages."""
        return self.strategy == "layer"

    def __str__(self) -> str:
        if self.num_devices == 1:
            return self.strategy
        if self.strategy == "tensor":
            return f"tensor {self.tensor}"
        slices = f" x tensor {self.tensor}" if self.tensor > 1 else ""
        runs = ", ".join(f"{run.start}-{run.stop - 1}" for run in self.runs)
        return f"{self.strategy} {self.stages}{slices}" + (f" (layers {runs})" if runs else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Calls of one model. `burstiness_cv`: deviation over mean of the gaps between calls; 1 is
    Poisson. `slo_s`: from the call to the answer. `concurrency`: sequences whose caches are held at
    once, or requests computed as one batch. `fixed`: what is not the planner's to choose;
    `left_aside`: why it cannot be kept."""

    name: str
    facts: ModelFacts
    rate_per_s: float
    burstiness_cv: float = 1.0
    slo_s: float = 1.0
    concurrency: int = 1
    fixed: Fixed | None = None
    left_aside: str = ""

    @property
    def kept(self) -> Fixed | None:
        """The shape that its replicas must have."""
        return None if self.left_aside else self.fixed
