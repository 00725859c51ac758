"""Facts of a model that a plan file describes, without its artefact."""

from __future__ import annotations

from dataclasses import replace

from cluster.config.planning.demand import LayersConfig, PlannedModelConfig
from cluster.config.planning.shard_map import parse_run
from cluster.config.variant import VariantConfig
from cluster.errors import ConfigError
from cluster.placement.estimates.transformers import Call, estimate
from cluster.placement.search.facts import Demand, Fixed, LayerFacts, ModelFacts

GIB = 2**30
KIB = 2**10


def described(name: str, planned: PlannedModelConfig) -> ModelFacts | None:
    """From `config` or `layers`; None when there is neither."""
    if planned.config:
        call = Call(tokens=planned.tokens, output_tokens=planned.output_tokens)
        return estimate(name, planned.config, call, bits=planned.bits or 16)
    return by_hand(name, planned.layers, planned) if planned.layers else None


def by_hand(name: str, layers: LayersConfig, planned: PlannedModelConfig) -> ModelFacts:
    """Equal layers; without heads the model is cut between layers only."""
    layer = LayerFacts(
        flops=layers.gflops * 1e9 / layers.count,
        weight_bytes=int(layers.weights_gib * GIB / layers.count),
        activation_bytes=int(layers.activation_kib * KIB),
        working_bytes=int(layers.working_kib * KIB),
        kv_bytes=int(layers.kv_kib * KIB),
    )
    return ModelFacts(
        kind=f"{name}/by hand",
        layers=(layer,) * layers.count,
        splits=tuple(("heads", heads) for heads in layers.heads),
        can_be_split=bool(layers.heads),
        weight_bits=planned.bits or 16,
        num_passes=1 + planned.output_tokens,
        note="as the plan file describes it",
    )


def as_configured(
    planned: PlannedModelConfig, variant: VariantConfig, *, is_batched: bool
) -> PlannedModelConfig:
    """With the most that a variant computes at once, where its demand does not say it: memory must
    do for that."""
    if "concurrency" in planned.model_fields_set:
        return planned
    if variant.llm is not None:
        most = variant.llm.max_num_seqs
    else:
        most = variant.batching.usual_sizes[-1] if is_batched else 1
    return planned.model_copy(update={"concurrency": most})


def demand_of(name: str, planned: PlannedModelConfig, facts: ModelFacts) -> Demand:
    """What is asked of it; times that were measured stand before estimated ones."""
    measured = tuple(sorted((kind, ms / 1e3) for kind, ms in planned.measured_ms.items()))
    if measured:
        facts = replace(facts, measured_s=measured, note=f"time measured; {facts.note}")
    return Demand(
        name=name,
        facts=facts,
        rate_per_s=planned.rate_per_s,
        burstiness_cv=planned.burstiness_cv,
        slo_s=planned.slo_ms / 1e3,
        concurrency=planned.concurrency,
    )


def fixed_of(variant: VariantConfig) -> Fixed | None:
    """The shape that a variant's section decides; None where it says nothing, or `auto`."""
    if variant.llm is not None:
        degrees = variant.llm.tensor_parallel, variant.llm.pipeline_parallel
        if max(degrees) > 1:
            strategy = "pipeline" if degrees[1] > 1 else "tensor"
            return Fixed(strategy=strategy, tensor=degrees[0], stages=degrees[1])
        return None
    placement = variant.placement
    shards = placement.num_shards
    if "strategy" not in placement.model_fields_set or shards is None:
        return None
    # Who counts the shards of `auto` has a pipeline of them.
    strategy = "pipeline" if placement.strategy == "auto" else placement.strategy
    tensor = shards if strategy == "tensor" else placement.tensor
    runs = tuple(map(parse_run, placement.shard_map))
    return Fixed(strategy=strategy, stages=shards // tensor, tensor=tensor, runs=runs)


def no_facts(name: str, why: str) -> ConfigError:
    """A model that nothing is known of."""
    allowed = "config (as in config.json) or layers (count, weights_gib, gflops)"
    return ConfigError(
        f"models.{name}: {why}; describe it in the topology file by {allowed}",
        key=f"models.{name}",
        value=name,
        allowed=allowed,
    )
