"""What a model is asked for, and what is known of it beyond its artefact."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from cluster.config.section import Section


class LayersConfig(Section):
    """A model described by hand: equal layers. `gflops` of one request; of it and of each layer:
    `activation_kib` leave it, `working_kib` are alive at once in it, `kv_kib` stay for each
    sequence. `heads` are what a tensor degree must divide (none: it is not cut so)."""

    count: int = Field(ge=1, le=4096)
    weights_gib: float = Field(gt=0)
    gflops: float = Field(gt=0)
    activation_kib: float = Field(default=0.0, ge=0)
    working_kib: float = Field(default=0.0, ge=0)
    kv_kib: float = Field(default=0.0, ge=0)
    heads: tuple[int, ...] = ()


class PlannedModelConfig(Section):
    """`burstiness_cv`: deviation over mean of the gaps between calls, 1 for Poisson. `slo_ms`: from
    call to answer. `tokens` go in, `output_tokens` are generated one by one; `concurrency`
    sequences hold their caches at once, or requests are computed as one batch (of a variant that
    says nothing: what its `batching` or `llm` allows). `bits` of a weight; 0 takes what the
    artefact has.

    Its facts come from the variant's artefact, else from `config` (what a Hugging Face config.json
    says) or from `layers`. `measured_ms`: one request alone on one device of a kind.
    """

    rate_per_s: float = Field(default=1.0, ge=0)
    burstiness_cv: float = Field(default=1.0, ge=0, le=100)
    slo_ms: float = Field(default=1000.0, gt=0)
    concurrency: int = Field(default=1, ge=1)
    tokens: int = Field(default=128, ge=1)
    output_tokens: int = Field(default=0, ge=0)
    bits: int = Field(default=0, ge=0, le=64)
    config: dict[str, object] = Field(default_factory=dict)
    layers: LayersConfig | None = None
    measured_ms: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_description(self) -> Self:
        if self.config and self.layers:
            raise ValueError("config and layers both describe the model: give one of them")
        for kind, milliseconds in self.measured_ms.items():
            if milliseconds <= 0:
                raise ValueError(f"measured_ms.{kind} must be above 0, got {milliseconds:g}")
        return self
