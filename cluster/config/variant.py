"""One served variant: an artefact of the store, an engine, its replicas and its batching."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from cluster.config.batching.ragged import RaggedConfig
from cluster.config.cache import PreprocessCacheConfig, ResponseCacheConfig
from cluster.config.device import parse_device
from cluster.config.language.settings import LanguageConfig
from cluster.config.model_card import ModelCard
from cluster.config.placement import PlacementConfig
from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.config.section import Section
from cluster.config.sequences import SequencesConfig
from cluster.errors import ConfigError
from cluster.models import MAX_THREADS, EngineName


class QueuePolicyConfig(Section):
    """Triton's `ModelQueuePolicy`. Timeouts are microseconds in the queue; 0 is never.

    `max_queue_size` counts requests of one priority level; 0 takes `batching.max_queue_size`
    (Triton's 0 is without a limit: a queue of ours always has one). A request's own `timeout`
    shortens its time in the queue only with `allow_timeout_override` and a default that is longer;
    as a deadline over queue and execution it holds in any case.
    """

    max_queue_size: int = Field(default=0, ge=0)
    default_timeout_us: int = Field(default=0, ge=0)
    allow_timeout_override: bool = False
    timeout_action: Literal["reject", "delay"] = "reject"


class BatchingConfig(Section):
    """Dynamic batching, named as Triton names it. Sizes count rows, delays are microseconds.

    `mode`: `fixed` takes the sizes as they stand; `adaptive` finds the largest batch that pays and
    that keeps `latency_target_ms` from what batches are seen to cost; `off` runs each request by
    itself. `buckets`: bounds of lengths in tokens; texts of one bucket batch together, and so do
    requests whose inputs are padded. `padding`: input -> what fills its free axis up to the longest
    of its batch (outputs are cut back). `ragged`: rows of different lengths are laid end to end.
    `separate_shapes`: each input shape queues for itself (buckets imply it); without it a request
    of another shape closes the batch before it. `fair_tenants`: within a priority level, tenants
    are served in turn by tokens or rows (`preserve_ordering` has only one turn: arrival).
    """

    mode: Literal["fixed", "adaptive", "off"] = "fixed"
    latency_target_ms: float | None = Field(default=None, gt=0)
    max_batch_size: int = Field(default=8, ge=1, le=65536)
    max_queue_delay_us: int = Field(default=0, ge=0, le=60_000_000)
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_size: int = Field(default=1024, ge=1)
    preserve_ordering: bool = False
    priority_levels: int = Field(default=0, ge=0, le=1024)
    default_priority_level: int = Field(default=0, ge=0)
    queue_policy: QueuePolicyConfig = QueuePolicyConfig()
    priority_queue_policy: dict[int, QueuePolicyConfig] = Field(default_factory=dict)
    buckets: tuple[int, ...] = ()
    padding: dict[str, float] = Field(default_factory=dict)
    ragged: RaggedConfig | None = None
    separate_shapes: bool = False
    fair_tenants: bool = True

    @property
    def usual_sizes(self) -> tuple[int, ...]:
        """Rows of the batches that will be sent most, the largest last."""
        return (*self.preferred_batch_sizes, 1 if self.mode == "off" else self.max_batch_size)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        for size in self.preferred_batch_sizes:
            if not 1 <= size <= self.max_batch_size:
                raise ValueError(
                    f"preferred_batch_sizes holds {size}, which is not between 1 and "
                    f"max_batch_size ({self.max_batch_size})"
                )
        if any(b < 1 for b in self.buckets) or list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError(f"buckets must be positive and rise, got {list(self.buckets)}")
        if self.padding and self.separate_shapes:
            raise ValueError("padding and separate_shapes exclude each other")
        if self.ragged is not None and (self.padding or self.separate_shapes or self.buckets):
            raise ValueError("ragged excludes padding, buckets and separate_shapes")
        if self.latency_target_ms is not None and self.mode != "adaptive":
            raise ValueError(f"latency_target_ms needs mode: adaptive, not {self.mode}")
        return self

    @model_validator(mode="after")
    def _levels_exist(self) -> Self:
        last = self.priority_levels
        if last and not 1 <= self.default_priority_level <= last:
            raise ValueError(
                f"default_priority_level is {self.default_priority_level}; with "
                f"priority_levels: {last} it must lie between 1 and {last}"
            )
        if not last and self.default_priority_level:
            raise ValueError("default_priority_level needs priority_levels")
        for level in self.priority_queue_policy:
            if not 1 <= level <= last:
                raise ValueError(
                    f"priority_queue_policy names level {level}; priority_levels is {last}"
                )
        return self

    @model_validator(mode="after")
    def _order_can_be_kept(self) -> Self:
        if not self.preserve_ordering:
            return self
        if self.priority_levels > 1:
            raise ValueError("preserve_ordering excludes more than one priority level")
        for policy in (self.queue_policy, *self.priority_queue_policy.values()):
            if policy.timeout_action == "delay" and policy.default_timeout_us:
                raise ValueError("preserve_ordering excludes timeout_action: delay with a timeout")
        if self.buckets or self.separate_shapes:
            raise ValueError("preserve_ordering excludes buckets and separate_shapes")
        return self


class ReplicaResources(Section):
    """What Ray reserves for one replica. A CPU replica reserves little: threads are the limit.
    `num_gpus`: a share of one in hundredths (`0.25`: four such replicas on a GPU), or whole ones.
    """

    num_cpus: float = Field(default=0.1, ge=0)
    num_gpus: float | None = Field(default=None, ge=0)
    memory_bytes: int | None = Field(default=None, gt=0)

    @field_validator("num_gpus")
    @classmethod
    def _is_a_share_or_whole(cls, num_gpus: float | None) -> float | None:
        if num_gpus is None or num_gpus == round(num_gpus) or 0.01 <= num_gpus < 1:
            return num_gpus
        raise ValueError(
            f"expected a share of a GPU (0.01 to 0.99) or whole ones, got {num_gpus:g}"
        )


class ProcessLimits(Section):
    """What one replica's process may take, and each of its shards'. Going over `memory_limit_mb`
    (resident set) or `cpu_limit` (cores, as the mean of ten seconds) ends that process and no other
    (but those of its own shard group): its requests are run elsewhere and Serve replaces it.

    `nice`: its priority for the cores, 0 (as everybody) to 19 (after everybody). `cpu_affinity`:
    cores of the machine; each replica takes as many of them for itself as it has threads, and all
    of them when its sisters have taken them.
    """

    nice: int = Field(default=0, ge=0, le=19)
    memory_limit_mb: float | None = Field(default=None, gt=0)
    cpu_limit: float | None = Field(default=None, gt=0)
    cpu_affinity: tuple[int, ...] = ()

    @field_validator("cpu_affinity")
    @classmethod
    def _cores_are_numbers(cls, cores: tuple[int, ...]) -> tuple[int, ...]:
        if any(core < 0 for core in cores) or len(set(cores)) != len(cores):
            raise ValueError(f"cores must be different numbers >= 0, got {list(cores)}")
        return cores

    @property
    def is_set(self) -> bool:
        return self != ProcessLimits()


class VariantConfig(Section):
    """`source` is `name` or `name/version` in the model store; `card` is a model card written here
    instead (user code, the fake engine). Exactly one of the two.

    `processed: false` serves the artefact's own tensors, without the card's processing.
    `optional: true`: the server is ready without it, and lists it as unavailable with the reason.
    `llm`: how a generating language model is run (format `causal_lm` only).
    `sequences`: the model's requests belong to sequences (and are batched as it says).
    `colocate`: whether each door holds the model itself, so that a request crosses no process; it
    is then scaled and killed with its door. `auto` does so with one replica of a small CPU model
    (`cluster.routing.colocation`). `placement`: the shards of each replica.
    `autoscaling`: how many replicas run, by load, instead of `replicas`.
    `version_of`: the variant whose name this one is another, older version of: callers reach it as
    `/v2/models/{version_of}/versions/{its version}`, and only those that name no version the other.
    """

    source: str | None = None
    card: ModelCard | None = None
    engine: EngineName | None = None
    device: str = "auto"
    threads: int = Field(default=1, ge=1, le=MAX_THREADS)
    replicas: int = Field(default=1, ge=0, le=4096)
    colocate: Literal["auto", "always", "never"] = "auto"
    processed: bool = True
    optional: bool = False
    batching: BatchingConfig = BatchingConfig()
    response_cache: ResponseCacheConfig = ResponseCacheConfig()
    preprocess_cache: PreprocessCacheConfig = PreprocessCacheConfig()
    sequences: SequencesConfig | None = None
    resources: ReplicaResources = ReplicaResources()
    limits: ProcessLimits = ProcessLimits()
    placement: PlacementConfig = PlacementConfig()
    llm: LanguageConfig | None = None
    autoscaling: AutoscalingConfig | None = None
    version_of: str = ""
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)

    @field_validator("source")
    @classmethod
    def _has_a_name(cls, source: str | None) -> str | None:
        name, _, version = (source or "-").partition("/")
        if not name or (version and not version.isdigit()):
            raise ValueError("expected `name` or `name/version` with a whole number as version")
        return source

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        try:
            parse_device(device)
        except ConfigError as error:
            reason = error.message.partition("; allowed")[0]
            told = {"reason": reason, "expected": error.details["allowed"]}
            raise PydanticCustomError("device", "{reason}", told) from None
        return device

    @model_validator(mode="after")
    def _shares_a_gpu_alone(self) -> Self:
        num_gpus, llm = self.resources.num_gpus, self.llm
        if num_gpus is None:
            return self
        if self.placement.is_sharded:
            raise ValueError(
                "resources.num_gpus excludes a sharded placement: each shard has the GPU that its "
                "placement names, whole unless it names the same one twice"
            )
        if llm is not None and llm.num_devices > 1 and num_gpus != llm.num_devices:
            raise ValueError(
                f"resources.num_gpus is {num_gpus:g}; llm spans {llm.num_devices} GPUs, whole ones"
            )
        if llm is not None and self.engine == "vllm" and 0 < num_gpus < llm.gpu_memory_utilization:
            raise ValueError(
                f"resources.num_gpus is {num_gpus:g} of a GPU, llm.gpu_memory_utilization takes "
                f"{llm.gpu_memory_utilization:g} of its memory; allowed: at most {num_gpus:g}"
            )
        return self

    @model_validator(mode="after")
    def _shards_are_where_it_computes(self) -> Self:
        """Shards that are given no device are on processors."""
        placement, kind = self.placement, parse_device(self.device).kind
        if kind in ("auto", "cpu") or placement.strategy == "auto" or not placement.is_sharded:
            return self
        if placement.names_no_gpu:
            count = placement.num_shards or 1
            written = (
                "each run's device in the shard_map"
                if placement.shard_map
                else f"placement.devices: [{', '.join(f'cuda:{n}' for n in range(count))}]"
            )
            raise ValueError(
                f"device is {self.device}, and the placement puts its {count} shards on "
                f"processors; write {written}, or device: cpu"
            )
        return self

    @model_validator(mode="after")
    def _has_its_own_process(self) -> Self:
        is_decoupled = self.card is not None and self.card.decoupled
        if self.colocate == "always" and (self.sequences is not None or is_decoupled):
            raise ValueError("colocate: always excludes sequences and decoupled models")
        if self.colocate == "always" and self.placement.is_sharded:
            raise ValueError("colocate: always excludes a sharded placement")
        if self.sequences is not None and self.placement.is_sharded:
            raise ValueError("sequences exclude a sharded placement")
        return self

    @model_validator(mode="after")
    def _rows_can_lie_end_to_end(self) -> Self:
        is_elsewhere = self.sequences is not None or self.placement.is_sharded
        if self.batching.ragged is not None and is_elsewhere:
            raise ValueError("batching.ragged excludes sequences and a sharded placement")
        return self

    @model_validator(mode="after")
    def _can_be_scaled(self) -> Self:
        if self.autoscaling is None:
            return self
        if self.colocate == "always":
            raise ValueError("autoscaling excludes colocate: always (it is scaled with its door)")
        if self.sequences is not None:
            raise ValueError("autoscaling excludes sequences (they belong to their replica)")
        if "replicas" in self.model_fields_set:
            raise ValueError("autoscaling excludes replicas; say autoscaling.initial_replicas")
        return self

    @model_validator(mode="after")
    def _answers_can_be_kept(self) -> Self:
        is_decoupled = self.card is not None and self.card.decoupled
        if self.response_cache.enabled and (self.sequences is not None or is_decoupled):
            raise ValueError("response_cache excludes sequences and decoupled models")
        return self

    @model_validator(mode="after")
    def _preprocessing_can_be_kept(self) -> Self:
        if self.preprocess_cache.enabled and not self.processed:
            raise ValueError("preprocess_cache needs processed: true; there is nothing to keep")
        return self

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.source is None) == (self.card is None):
            raise ValueError("needs exactly one of `source` (a stored model) and `card` (inline)")
        return self

    @model_validator(mode="after")
    def _engine_has_what_llm_says(self) -> Self:
        wanted = self.llm.needs_vllm() if self.llm is not None and self.engine != "vllm" else ()
        if wanted:
            raise ValueError(f"llm.{', llm.'.join(wanted)} needs engine: vllm, not {self.engine}")
        if self.llm is not None and self.colocate == "always":
            raise ValueError("colocate: always excludes llm: it needs a process of its own")
        return self

    @model_validator(mode="after")
    def _limits_need_a_process(self) -> Self:
        if self.limits.is_set and self.colocate == "always":
            raise ValueError("limits need a process of their own; colocate: always has none")
        return self
