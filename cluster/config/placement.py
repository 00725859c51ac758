"""How one replica of a variant is cut into shards, and what its shards may take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from cluster.config.device import parse_device
from cluster.config.planning.demand import PlannedModelConfig
from cluster.config.planning.shard_map import map_mistakes
from cluster.config.section import Mistakes, Section
from cluster.errors import ConfigError

Strategy = Literal["single", "data", "layer", "pipeline", "tensor", "auto"]
Transport = Literal["auto", "shared_memory", "unix", "tcp", "gloo", "nccl"]
BundleStrategy = Literal["auto", "STRICT_PACK", "PACK", "SPREAD", "STRICT_SPREAD"]


def _device(text: str) -> str:
    try:
        return str(parse_device(text))
    except ConfigError as error:
        raise ValueError(error.message) from None


class ShardSite(Section):
    """Where a run of layers goes: a device, or `devices` of one node, one for each tensor slice.

    `node`: a name of our own. What has the same name shares a node, what has another one is on
    another node; which node of the cluster that is, is Ray's choice among those with the `labels`.
    """

    device: str = "cpu"
    devices: tuple[str, ...] = ()
    node: str = ""
    labels: dict[str, str] = Field(default_factory=dict)

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        return _device(device)

    @field_validator("devices")
    @classmethod
    def _are_devices(cls, devices: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_device, devices))

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.devices and self.device != "cpu":
            raise ValueError("device and devices both say where these layers go: give one of them")
        return self

    @classmethod
    def of(cls, text: str) -> ShardSite:
        """`cuda:1`, or `rack-3/cuda:1` with the name of a node."""
        node, _, device = text.rpartition("/")
        return cls(device=device, node=node)

    def __str__(self) -> str:
        return f"{self.node}/{self.device}" if self.node else self.device


def _site(text: str) -> dict[str, str]:
    site = ShardSite.of(text)
    return site.model_dump(include={"device", "node"} if site.node else {"device"})


class PlacementConfig(Section):
    """`strategy`: `single` (one process, the default), `data` (whole copies: `replicas`), `layer`
    (runs of layers in several processes, one request at a time; `model` is another name of it),
    `pipeline` (the same cut with `micro_batches` in flight), `tensor` (every layer cut by columns
    and rows), `auto` (what the planner finds on the nodes there are for `demand`, each device
    holding at most `max_memory_mb`). `parallelism` is another name of `strategy`.

    `shards` counts the processes of a replica; `tensor` of them share each stage of a `pipeline`
    or `layer` placement. `shard_map` writes the cut by hand: `layers.0-5` or `layer_0_to_5` ->
    a device, or what `ShardSite` has; its order is the order of the stages. Devices may be written
    with a node, `a/cuda:0`; `nodes` says which labels the node of a name must carry. Slices of a
    stage are on one node, always. Shards that are given no device compute on processors; only
    `auto` takes GPUs by itself.

    `max_memory_mb`: weights of one shard that may be resident at once; layers beyond it stay out
    and are brought in one ahead. `kv_cache`: `static` takes `kv_cache_tokens` a sequence at once.
    `heartbeat_timeout_s`: a shard that says nothing for so long is taken for lost;
    `step_timeout_s`: so is a group that has not finished a step by then.
    """

    strategy: Strategy = "single"
    shards: int | None = Field(default=None, ge=1, le=1024)
    tensor: int = Field(default=1, ge=1, le=64)
    shard_map: dict[str, ShardSite] = Field(default_factory=dict)
    devices: tuple[str, ...] = ()
    nodes: dict[str, dict[str, str]] = Field(default_factory=dict)
    micro_batches: int = Field(default=8, ge=1, le=1024)
    bundles: BundleStrategy = "auto"
    transport: Transport = "auto"
    max_memory_mb: float | None = Field(default=None, gt=0)
    kv_cache: Literal["dynamic", "static"] = "dynamic"
    kv_cache_tokens: int = Field(default=2048, ge=1)
    heartbeat_timeout_s: float = Field(default=5.0, gt=0.5)
    step_timeout_s: float = Field(default=60.0, gt=0)
    start_timeout_s: float = Field(default=300.0, gt=0)
    num_cpus: float = Field(default=0.1, ge=0)
    demand: PlannedModelConfig = PlannedModelConfig()

    @model_validator(mode="before")
    @classmethod
    def _other_names(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        told = dict(given)
        if "parallelism" in told:
            if "strategy" in told:
                raise ValueError("parallelism is another name of strategy: give one of them")
            told["strategy"] = told.pop("parallelism")
        if told.get("strategy") == "model":
            told["strategy"] = "layer"
        if told.get("shard_map") and "strategy" not in told:
            told["strategy"] = "layer"
        return told

    @field_validator("strategy", mode="before")
    @classmethod
    def _is_a_strategy(cls, given: Any) -> Any:
        known = get_args(Strategy)
        if given not in known:
            told = {"expected": f"{', '.join(known)}, model (another name of layer)"}
            raise PydanticCustomError("strategy", "no such strategy", told)
        return given

    @field_validator("shard_map", mode="before")
    @classmethod
    def _sites(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {k: _site(v) if isinstance(v, str) else v for k, v in given.items()}

    @field_validator("devices")
    @classmethod
    def _are_devices(cls, devices: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ShardSite.of(device)) for device in devices)

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        whole = self.strategy in ("single", "data")
        if whole and (self.shards or 1) * self.tensor > 1:
            raise ValueError(
                f"strategy {self.strategy} has one process a replica; shards and tensor need "
                "layer, pipeline, tensor or auto"
            )
        self._check_idle_keys()
        if self.strategy in ("layer", "pipeline", "tensor") and not (self.shards or self.shard_map):
            wanted = "`shards`" if self.strategy == "tensor" else "`shards` or a `shard_map`"
            raise ValueError(f"strategy {self.strategy} needs {wanted}")
        if self.shard_map and self.strategy not in ("layer", "pipeline"):
            raise ValueError(
                f"shard_map excludes strategy {self.strategy}; allowed: layer, pipeline"
            )
        if self.shard_map and self.shards not in (None, len(self.shard_map) * self.tensor):
            raise ValueError(
                f"shards is {self.shards}, the shard_map has {len(self.shard_map)} stages of "
                f"{self.tensor}"
            )
        if self.strategy == "tensor" and self.tensor not in (1, self.shards):
            raise ValueError(
                f"strategy tensor cuts every layer into all {self.shards} shards; for "
                f"{self.tensor} within stages write strategy pipeline or layer"
            )
        if self.shards and self.strategy != "tensor" and self.shards % self.tensor:
            raise ValueError(f"shards ({self.shards}) is no multiple of tensor ({self.tensor})")
        if self.strategy != "auto" and self.demand != PlannedModelConfig():
            raise ValueError(f"demand is what auto plans for; strategy is {self.strategy}")
        if self.devices and self.shard_map:
            raise ValueError("devices and shard_map both say where shards go: give one of them")
        if self.devices and self.shards and len(self.devices) != self.shards:
            raise ValueError(f"devices names {len(self.devices)}, shards is {self.shards}")
        self._check_slices()
        self._check_nodes()
        mistakes = tuple(map_mistakes((k, str(site)) for k, site in self.shard_map.items()))
        if mistakes:
            raise Mistakes(mistakes)
        return self

    def _check_idle_keys(self) -> None:
        """A key that does nothing here is a wish that nobody grants: told, not left."""
        # Sections are written out whole and read again: what has its default was not asked for.
        asked = self.model_dump(exclude_defaults=True)
        if not self.is_sharded:
            idle = asked.keys() - {"strategy", "shards", "tensor", "shard_map", "demand"}
            if idle:
                raise ValueError(
                    f"{sorted(idle)[0]} does nothing under strategy {self.strategy}: it is for "
                    "replicas of shard processes; `strategy: layer, shards: 1` has one"
                )
        if self.strategy == "layer" and asked.get("micro_batches", 1) > 1:
            raise ValueError(
                f"micro_batches is {self.micro_batches}, and strategy layer has one request in "
                "flight at a time; strategy pipeline has several"
            )
        if "kv_cache_tokens" in asked and self.kv_cache != "static":
            raise ValueError("kv_cache_tokens is what `kv_cache: static` takes; it is dynamic")

    def _check_slices(self) -> None:
        for text, site in self.shard_map.items():
            if site.devices and len(site.devices) != self.tensor:
                raise ValueError(
                    f"shard_map.{text} names {len(site.devices)} devices for {self.tensor} slices"
                )
            if not site.devices and self.tensor > 1 and ":" in site.device:
                raise ValueError(
                    f"shard_map.{text} puts {self.tensor} slices on {site.device} alone: name one "
                    f"for each, `devices: [{site.device}, …]` (the same one again to share it)"
                )

    def _check_nodes(self) -> None:
        named = {site.node for site in self.shard_map.values()}
        named |= {ShardSite.of(device).node for device in self.devices}
        unused = sorted(set(self.nodes) - named)
        if unused:
            allowed = ", ".join(sorted(named - {""})) or "none: no device names a node"
            raise ValueError(f"nodes.{unused[0]}: nothing is placed on it; allowed: {allowed}")
        if "" in named and len(named) > 1:
            raise ValueError("give every shard a node, or none: some name one and some do not")

    @property
    def is_sharded(self) -> bool:
        """Whether a replica has worker processes beside its own."""
        return self.strategy not in ("single", "data")

    @property
    def names_no_gpu(self) -> bool:
        sites = [d for site in self.shard_map.values() for d in (site.devices or (site.device,))]
        sites += [ShardSite.of(device).device for device in self.devices]
        return all(device == "cpu" for device in sites)

    @property
    def num_shards(self) -> int | None:
        """None when `auto` has yet to decide."""
        if self.shard_map:
            return len(self.shard_map) * self.tensor
        return self.shards or (None if self.strategy == "auto" else 1)
