"""Token buckets: what may be taken, how long to wait, and what is owed."""

from __future__ import annotations

import pytest

from cluster.access.quota import (
    Bucket,
    filled,
    give,
    requests_quota,
    take,
    tokens_quota,
)


def test_a_rested_key_may_take_a_second_s_worth_at_once_and_no_more() -> None:
    quota = requests_quota(3, num_nodes=1)
    bucket, waits = filled(None, quota, 10.0), []

    for _ in range(4):
        bucket, wait_s = take(bucket, quota, 1.0)
        waits.append(wait_s)

    assert waits == [0.0, 0.0, 0.0, pytest.approx(1 / 3)]


def test_the_wait_that_is_told_is_enough() -> None:
    quota = requests_quota(2, num_nodes=1)
    empty = Bucket(level=0.25, at_s=10.0)
    _, wait_s = take(empty, quota, 1.0)

    _, again_s = take(filled(empty, quota, 10.0 + wait_s), quota, 1.0)
    _, early_s = take(filled(empty, quota, 10.0 + wait_s * 0.9), quota, 1.0)

    assert (wait_s, again_s) == (0.375, 0.0)
    assert early_s > 0


def test_a_rate_below_one_a_second_still_lets_one_through() -> None:
    quota = requests_quota(0.1, num_nodes=2)

    bucket, wait_s = take(filled(None, quota, 5.0), quota, 1.0)

    assert wait_s == 0.0
    assert take(bucket, quota, 1.0)[1] == pytest.approx(20.0)


def test_a_request_larger_than_the_burst_is_owed_not_refused_for_ever() -> None:
    quota = tokens_quota(600, num_nodes=1)

    bucket, wait_s = take(filled(None, quota, 1.0), quota, 1000.0)

    assert (bucket.level, wait_s) == (-400.0, 0.0)
    assert take(bucket, quota, 1.0)[1] == pytest.approx(40.1)


def test_what_was_not_used_comes_back_and_never_more_than_the_burst() -> None:
    quota = tokens_quota(60, num_nodes=1)
    bucket = Bucket(level=10.0, at_s=1.0)

    assert give(bucket, quota, 30.0).level == 40.0
    assert give(bucket, quota, 300.0).level == 60.0
    assert give(bucket, quota, -30.0).level == -20.0


def test_a_bucket_of_another_boot_is_a_full_one() -> None:
    quota = requests_quota(5, num_nodes=1)

    assert filled(Bucket(level=-9.0, at_s=1e9), quota, 3.0) == Bucket(level=5.0, at_s=3.0)
