"""How a queue behaves: sizes, delays, priority levels, and what happens to those who wait long.

Source: Triton's model configuration, `ModelDynamicBatching` and `ModelQueuePolicy`; where ours
differs, the field says so.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from cluster.config.variant import BatchingConfig, QueuePolicyConfig

TimeoutAction = Literal["reject", "delay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelPolicy:
    """One priority level's queue. `default_timeout_s` infinite: nobody waits too long.

    `max_queue_size` counts requests of this level; 0 is without a limit.
    """

    max_queue_size: int = 0
    default_timeout_s: float = inf
    allow_timeout_override: bool = False
    timeout_action: TimeoutAction = "reject"

    def timeout_s(self, asked_s: float) -> float:
        """How long a request may wait here. Its own wish counts only where it is allowed and
        smaller, so with no default it has no effect at all (as Triton has it)."""
        if self.allow_timeout_override and asked_s < self.default_timeout_s < inf:
            return asked_s
        return self.default_timeout_s


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPolicy:
    """Sizes count rows, times are seconds; no preferred size means that only a full batch leaves
    before the delay is over.

    `priority_levels` 0: one level, priorities are ignored. `level` holds for every level that
    `levels` does not name. `has_shape_lanes`: each shape key queues for itself, so that none
    waits behind another; without it another shape closes the batch. `is_fair`: tenants of a level
    take turns by what they were served; without it first come, first served.
    """

    max_batch_size: int
    max_queue_delay_s: float = 0.0
    preferred_batch_sizes: tuple[int, ...] = ()
    priority_levels: int = 0
    default_priority_level: int = 0
    level: LevelPolicy = LevelPolicy(max_queue_size=1024)
    levels: dict[int, LevelPolicy] = field(default_factory=dict)
    has_shape_lanes: bool = False
    is_fair: bool = True

    def level_of(self, priority: int) -> int:
        """1 is served first; 0 and what lies above the last level get the default level."""
        if not self.priority_levels:
            return 1
        return priority if 1 <= priority <= self.priority_levels else self.default_priority_level


def policy_of(config: BatchingConfig, *, is_batched: bool) -> BatchPolicy:
    """What the config asks for. A model without a batch dimension runs one request at a time."""
    is_batching = is_batched and config.mode != "off"
    return BatchPolicy(
        max_batch_size=config.max_batch_size if is_batching else 1,
        max_queue_delay_s=config.max_queue_delay_us / 1e6 if is_batching else 0.0,
        preferred_batch_sizes=config.preferred_batch_sizes if is_batching else (),
        priority_levels=config.priority_levels,
        default_priority_level=config.default_priority_level,
        level=_level(config.queue_policy, config),
        levels={
            level: _level(policy, config) for level, policy in config.priority_queue_policy.items()
        },
        has_shape_lanes=config.separate_shapes or bool(config.buckets),
        is_fair=config.fair_tenants and not config.preserve_ordering,
    )


def bucket_of(length: int, bounds: tuple[int, ...]) -> Hashable:
    """The smallest bound that holds `length`; beyond the last one, a bucket of its own (-1)."""
    return next((bound for bound in bounds if length <= bound), -1)


def _level(policy: QueuePolicyConfig, config: BatchingConfig) -> LevelPolicy:
    return LevelPolicy(
        max_queue_size=policy.max_queue_size or config.max_queue_size,
        default_timeout_s=policy.default_timeout_us / 1e6 or inf,
        allow_timeout_override=policy.allow_timeout_override,
        timeout_action=policy.timeout_action,
    )
