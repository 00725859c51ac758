"""`shard_model`'s words as the section `placement` of the YAML, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.config.placement import PlacementConfig


def placement_of(
    num_shards: int | None, strategy: str, shard_config: Mapping[str, Any] | None
) -> PlacementConfig:
    """`shard_config` has the keys of the YAML's section `placement` (`shard_map`, …) and goes
    before the two others. Raises: ConfigError naming the key."""
    from pydantic import ValidationError

    from cluster.config.report import explain

    told: dict[str, Any] = dict(shard_config or {})
    if not {"strategy", "parallelism", "shard_map"} & told.keys():
        told["strategy"] = strategy
    if num_shards is not None and not {"shards", "shard_map"} & told.keys():
        told["shards"] = num_shards
    try:
        return PlacementConfig(**told)
    except ValidationError as error:
        raise explain(error, PlacementConfig, "shard_model") from None


def yaml_of(placement: PlacementConfig) -> str:
    """The section of the YAML that says the same, in one line."""
    told: Sequence[str] = [
        f"{key}: {value}"
        for key, value in placement.model_dump(mode="json", exclude_defaults=True).items()
    ]
    return f"placement: {{{', '.join(told)}}}"
