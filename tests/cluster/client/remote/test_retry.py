"""When a call that failed is sent again."""

from __future__ import annotations

import pytest

from cluster.client.remote.retry import RETRIED, Retry
from cluster.errors import ConfigError


def waits(retry: Retry, draw: float, status: int | None = 503) -> list[float | None]:
    return [
        retry.wait_s(attempt, status=status, told_s=None, draw=draw)
        for attempt in range(retry.max_retries + 1)
    ]


def test_waits_double_up_to_the_longest_and_end_after_the_last_retry() -> None:
    retry = Retry(max_retries=4, first_wait_s=1.0, max_wait_s=4.0)

    assert waits(retry, draw=0.0) == [0.5, 1.0, 2.0, 2.0, None]
    assert waits(retry, draw=1.0) == [1.0, 2.0, 4.0, 4.0, None]


@pytest.mark.parametrize("status", [None, *RETRIED])
def test_broken_connections_and_busy_servers_are_asked_again(status: int | None) -> None:
    assert Retry().wait_s(0, status=status, told_s=None, draw=0.5) is not None


@pytest.mark.parametrize("status", [200, 400, 401, 404, 413, 500, 501, 504])
def test_answers_stand(status: int) -> None:
    assert Retry().wait_s(0, status=status, told_s=1.0, draw=0.5) is None


def test_a_server_that_names_a_wait_is_believed_within_bounds() -> None:
    retry = Retry(max_wait_s=5.0)

    assert retry.wait_s(0, status=503, told_s=2.0, draw=0.5) == 2.0
    assert retry.wait_s(0, status=429, told_s=60.0, draw=0.5) == 5.0


def test_fewer_retries_than_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="0 and more"):
        Retry(max_retries=-1)
