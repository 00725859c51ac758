"""How much a key may ask for: token buckets, whose level rises with time up to a burst."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """`burst`: what may be taken at once after a rest."""

    rate_per_s: float
    burst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """`level` at the time `at_s`; below zero when more was used than was foreseen."""

    level: float
    at_s: float


def requests_quota(requests_per_s: float, num_nodes: int) -> Quota:
    rate = requests_per_s / num_nodes
    return Quota(rate_per_s=rate, burst=max(1.0, rate))


def tokens_quota(tokens_per_minute: float, num_nodes: int) -> Quota:
    each = tokens_per_minute / num_nodes
    return Quota(rate_per_s=each / 60, burst=max(1.0, each))


def filled(bucket: Bucket | None, quota: Quota, now_s: float) -> Bucket:
    """The bucket as it is now. None, or one from another boot's clock: a full one."""
    if bucket is None or bucket.at_s > now_s:
        return Bucket(level=quota.burst, at_s=now_s)
    risen = bucket.level + (now_s - bucket.at_s) * quota.rate_per_s
    return Bucket(level=min(quota.burst, risen), at_s=now_s)


def take(bucket: Bucket, quota: Quota, amount: float) -> tuple[Bucket, float]:
    """The bucket after it, and 0; or the same bucket and how many seconds to wait.

    One whole unit must be there; the rest may be owed, so that a request larger than the burst is
    not refused for ever.
    """
    if bucket.level < 1.0:
        return bucket, (1.0 - bucket.level) / quota.rate_per_s
    return Bucket(level=bucket.level - amount, at_s=bucket.at_s), 0.0


def give(bucket: Bucket, quota: Quota, amount: float) -> Bucket:
    """Put back what was taken too much; a negative amount takes what was not foreseen."""
    return Bucket(level=min(quota.burst, bucket.level + amount), at_s=bucket.at_s)
