"""`llm:` of a variant: how a language model is loaded, shared between devices and queued for."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from cluster.config.section import Section


class LoraAdapter(Section):
    """An adapter on top of the model, called by `name` as a model of its own."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    path: str


class LoraConfig(Section):
    """Adapters that are there from the start, and a folder of others: one in `directory` is loaded
    when it is first asked for, and again when its files are others; one that is taken away is gone.
    Clients call them `model:adapter`."""

    adapters: tuple[LoraAdapter, ...] = ()
    directory: str = ""
    max_loaded: int = Field(default=1, ge=1, le=256)
    max_rank: int = Field(default=16, ge=1, le=512)

    @model_validator(mode="after")
    def _has_each_name_once(self) -> Self:
        names = [each.name for each in self.adapters]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"adapters: {', '.join(twice)} is there twice")
        return self


class SpeculativeConfig(Section):
    """Draft tokens that the model then checks all at once. `ngram` needs no second model;
    `draft_model` is a folder or a name in the model store."""

    method: Literal["ngram", "draft_model", "eagle", "eagle3", "medusa"] = "ngram"
    num_tokens: int = Field(default=4, ge=1, le=32)
    draft_model: str = ""
    ngram_max: int = Field(default=4, ge=1, le=16)
    ngram_min: int = Field(default=1, ge=1, le=16)

    @model_validator(mode="after")
    def _has_a_draft(self) -> Self:
        if self.method != "ngram" and not self.draft_model:
            raise ValueError(f"method {self.method} needs draft_model")
        if self.ngram_min > self.ngram_max:
            raise ValueError(f"ngram_min {self.ngram_min} is more than ngram_max {self.ngram_max}")
        return self


class PromptQueueConfig(Section):
    """What may wait in front of the engine; more is refused (503, `Retry-After`).

    `max_tokens` counts prompts plus the new tokens that their requests allow.
    """

    max_requests: int = Field(default=256, ge=1)
    max_tokens: int = Field(default=1_000_000, ge=1)


class RoutingConfig(Section):
    """Which replica a request goes to. `prefix`: to the one that has computed the longest common
    beginning, unless it has `max_imbalance` times the mean work; `least_work`: to the one with the
    least work; `power_of_two`: to the better of two drawn ones."""

    policy: Literal["prefix", "least_work", "power_of_two"] = "prefix"
    block_chars: int = Field(default=128, ge=16, le=4096)
    max_imbalance: float = Field(default=1.5, ge=1.0, le=100.0)
    max_blocks: int = Field(default=65536, ge=1)


class LanguageConfig(Section):
    """How a generating model is run. One replica spans `tensor_parallel` × `pipeline_parallel`
    devices; `replicas` of the variant are data parallel.

    `kv_cache_bytes`: memory for keys and values (0: the engine's own choice; on a GPU what
    `gpu_memory_utilization` leaves). `max_num_seqs`: choices that are computed together.
    `max_batched_tokens`: tokens of one step (0: the engine's own choice). `cache_growth`: engine
    torch reserves keys and values at once (`static`) or as sequences grow (`dynamic`).
    """

    tensor_parallel: int = Field(default=1, ge=1, le=1024)
    pipeline_parallel: int = Field(default=1, ge=1, le=1024)
    placement: Literal["pack", "strict_pack", "spread"] = "pack"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    quantisation: (
        Literal["awq", "gptq", "fp8", "compressed-tensors", "bitsandbytes", "modelopt"] | None
    ) = None
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    kv_cache_bytes: int = Field(default=0, ge=0)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    max_model_len: int = Field(default=0, ge=0)
    max_num_seqs: int = Field(default=32, ge=1, le=8192)
    max_batched_tokens: int = Field(default=0, ge=0)
    block_size: int = Field(default=0, ge=0, le=1024)
    prefix_caching: bool = True
    chunked_prefill: bool = True
    enforce_eager: bool = False
    load_format: Literal["auto", "safetensors", "dummy"] = "auto"
    cache_growth: Literal["static", "dynamic"] = "dynamic"
    default_max_tokens: int = Field(default=0, ge=0)
    chat_template: str = ""
    seed: int = 0
    speculative: SpeculativeConfig | None = None
    lora: LoraConfig | None = None
    queue: PromptQueueConfig = PromptQueueConfig()
    routing: RoutingConfig = RoutingConfig()

    @property
    def num_devices(self) -> int:
        """Devices that one replica spans."""
        return self.tensor_parallel * self.pipeline_parallel

    def needs_vllm(self) -> tuple[str, ...]:
        """The keys whose values no other engine has."""
        wanted = [name for name in _VLLM_ONLY if getattr(self, name) is not None]
        wanted += [name for name in _DEGREES if getattr(self, name) > 1]
        if self.kv_cache_dtype != "auto":
            wanted.append("kv_cache_dtype")
        return tuple(wanted)


_VLLM_ONLY = ("quantisation", "speculative", "lora")
_DEGREES = ("tensor_parallel", "pipeline_parallel")
