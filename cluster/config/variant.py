"""One served variant: an artefact of the store, an engine, its replicas and its batching."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from cluster.config.model_card import ModelCard
from cluster.config.section import Section
from cluster.models import EngineName

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class BatchingConfig(Section):
    """Dynamic batching, named as Triton names it. Sizes count rows, delays are microseconds."""

    max_batch_size: int = Field(default=8, ge=1, le=65536)
    max_queue_delay_us: int = Field(default=0, ge=0, le=60_000_000)
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_size: int = Field(default=1024, ge=1)

    @model_validator(mode="after")
    def _preferred_fit(self) -> Self:
        for size in self.preferred_batch_sizes:
            if not 1 <= size <= self.max_batch_size:
                raise ValueError(
                    f"preferred_batch_sizes holds {size}, which is not between 1 and "
                    f"max_batch_size ({self.max_batch_size})"
                )
        return self


class ReplicaResources(Section):
    """What Ray reserves for one replica. A CPU replica reserves little: threads are the limit."""

    num_cpus: float = Field(default=0.1, ge=0)
    num_gpus: float | None = Field(default=None, ge=0)
    memory_bytes: int | None = Field(default=None, gt=0)


class VariantConfig(Section):
    """`source` is `name` or `name/version` in the model store; `card` is a model card written here
    instead (user code, the fake engine). Exactly one of the two.

    `processed: false` serves the artefact's own tensors, without the card's processing.
    `optional: true`: the server is ready without it, and lists it as unavailable with the reason.
    """

    source: str | None = None
    card: ModelCard | None = None
    engine: EngineName | None = None
    device: str = "auto"
    threads: int = Field(default=1, ge=1, le=256)
    replicas: int = Field(default=1, ge=0, le=4096)
    processed: bool = True
    optional: bool = False
    batching: BatchingConfig = BatchingConfig()
    resources: ReplicaResources = ReplicaResources()
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)

    @field_validator("source")
    @classmethod
    def _has_a_name(cls, source: str | None) -> str | None:
        name, _, version = (source or "-").partition("/")
        if not name or (version and not version.isdigit()):
            raise ValueError("expected `name` or `name/version` with a whole number as version")
        return source

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.source is None) == (self.card is None):
            raise ValueError("needs exactly one of `source` (a stored model) and `card` (inline)")
        return self
