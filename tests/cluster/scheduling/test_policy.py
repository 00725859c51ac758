"""The batching section of a variant, and what becomes of it."""

from __future__ import annotations

from math import inf

import pytest
from pydantic import ValidationError

from cluster.config.variant import BatchingConfig
from cluster.scheduling.policy import BatchPolicy, LevelPolicy, bucket_of, policy_of


def config(**keys: object) -> BatchingConfig:
    return BatchingConfig.model_validate(keys)


def test_the_section_becomes_a_policy_in_rows_and_seconds() -> None:
    made = policy_of(
        config(
            max_batch_size=32,
            max_queue_delay_us=2000,
            preferred_batch_sizes=[8, 16],
            priority_levels=3,
            default_priority_level=2,
            queue_policy={"default_timeout_us": 500_000, "allow_timeout_override": True},
            priority_queue_policy={1: {"max_queue_size": 7, "timeout_action": "delay"}},
            buckets=[32, 128],
        ),
        is_batched=True,
    )

    assert made == BatchPolicy(
        max_batch_size=32,
        max_queue_delay_s=0.002,
        preferred_batch_sizes=(8, 16),
        priority_levels=3,
        default_priority_level=2,
        level=LevelPolicy(max_queue_size=1024, default_timeout_s=0.5, allow_timeout_override=True),
        levels={1: LevelPolicy(max_queue_size=7, default_timeout_s=inf, timeout_action="delay")},
        has_shape_lanes=True,
    )


def test_preserve_ordering_leaves_one_turn_for_all_tenants() -> None:
    assert not policy_of(config(preserve_ordering=True), is_batched=True).is_fair


@pytest.mark.parametrize(("keys", "is_batched"), [({"mode": "off"}, True), ({}, False)])
def test_without_batching_every_request_is_a_batch(
    keys: dict[str, object], is_batched: bool
) -> None:
    made = policy_of(
        config(**keys, max_queue_delay_us=9, preferred_batch_sizes=[2]), is_batched=is_batched
    )

    assert (made.max_batch_size, made.max_queue_delay_s, made.preferred_batch_sizes) == (1, 0, ())


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"preferred_batch_sizes": [9]}, "preferred_batch_sizes holds 9"),
        ({"priority_levels": 2}, "default_priority_level is 0"),
        ({"priority_levels": 2, "default_priority_level": 3}, "must lie between 1 and 2"),
        ({"default_priority_level": 1}, "needs priority_levels"),
        ({"priority_queue_policy": {1: {}}}, "names level 1; priority_levels is 0"),
        (
            {"preserve_ordering": True, "priority_levels": 2, "default_priority_level": 1},
            "excludes more than one priority level",
        ),
        (
            {
                "preserve_ordering": True,
                "queue_policy": {"timeout_action": "delay", "default_timeout_us": 1},
            },
            "excludes timeout_action: delay with a timeout",
        ),
        ({"preserve_ordering": True, "buckets": [8]}, "excludes buckets"),
        ({"buckets": [64, 32]}, "buckets must be positive and rise"),
        ({"latency_target_ms": 5}, "latency_target_ms needs mode: adaptive"),
        ({"queue_policy": {"timeout_action": "drop"}}, "timeout_action"),
    ],
)
def test_what_cannot_be_is_refused_at_load(keys: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        config(**keys)


@pytest.mark.parametrize(("priority", "level"), [(0, 2), (1, 1), (3, 3), (4, 2)])
def test_no_priority_and_one_above_the_last_get_the_default_level(
    priority: int, level: int
) -> None:
    policy = BatchPolicy(max_batch_size=1, priority_levels=3, default_priority_level=2)

    assert policy.level_of(priority) == level


@pytest.mark.parametrize(
    ("default_s", "is_allowed", "asked_s", "found_s"),
    [(inf, True, 1.0, inf), (5.0, True, 1.0, 1.0), (5.0, True, 9.0, 5.0), (5.0, False, 1.0, 5.0)],
)
def test_a_request_shortens_its_timeout_only_where_it_may(
    default_s: float, is_allowed: bool, asked_s: float, found_s: float
) -> None:
    policy = LevelPolicy(default_timeout_s=default_s, allow_timeout_override=is_allowed)

    assert policy.timeout_s(asked_s) == found_s


@pytest.mark.parametrize(("length", "bucket"), [(1, 32), (32, 32), (33, 64), (999, -1)])
def test_a_length_belongs_to_the_smallest_bucket_that_holds_it(length: int, bucket: int) -> None:
    assert bucket_of(length, (32, 64)) == bucket
