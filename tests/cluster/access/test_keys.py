"""Whose key it is, and what a caller is told who has none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.access.keys import (
    EXPIRED_KEY,
    NO_KEY,
    WRONG_KEY,
    KeyRing,
    digest_of,
    key_of,
)
from cluster.config.security.api_keys import ApiKey
from cluster.errors import Unauthorized

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEY = key_of("0123456789ab", "secret_with_underscore")


def entry(key: str = KEY, expires: datetime | None = None) -> ApiKey:
    return ApiKey(
        id=key.split("_")[1],
        name="app",
        sha256=digest_of(key),
        scopes=("infer",),
        expires=expires,
    )


def refusal(authorization: str | None, *keys: ApiKey) -> str:
    with pytest.raises(Unauthorized) as refused:
        KeyRing(keys).caller(authorization, NOW)
    return refused.value.message


def test_a_key_finds_its_caller_whatever_the_case_of_the_scheme() -> None:
    ring = KeyRing([entry()])

    for authorization in (f"Bearer {KEY}", f"bearer {KEY}", f"BEARER  {KEY} "):
        assert ring.caller(authorization, NOW).key.name == "app"


@pytest.mark.parametrize("sent", [None, "", "Basic dXNlcjpwYXNz", KEY])
def test_what_holds_no_bearer_key_is_told_to_send_one(sent: str | None) -> None:
    assert refusal(sent, entry()) == NO_KEY


@pytest.mark.parametrize(
    "sent",
    [
        "Bearer ",
        "Bearer x",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        "Bearer sqn_0123456789ab_",
        "Bearer sqn_ffffffffffff_secret_with_underscore",
        "Bearer " + "é" * 5000,
    ],
)
def test_a_key_that_is_almost_right_is_as_wrong_as_any(sent: str) -> None:
    assert refusal(sent, entry()) == WRONG_KEY


@given(sent=st.text() | st.text(alphabet="sqn_0123456789ab ").map(lambda text: f"Bearer {text}"))
def test_whatever_is_sent_is_refused_and_nothing_worse(sent: str) -> None:
    assert refusal(sent, entry()) in (NO_KEY, WRONG_KEY)


def test_a_key_is_good_until_its_last_moment_only() -> None:
    ring = KeyRing([entry(expires=NOW + timedelta(seconds=1))])

    assert ring.caller(f"Bearer {KEY}", NOW).key.name == "app"
    assert refusal(f"Bearer {KEY}", entry(expires=NOW)) == EXPIRED_KEY


def test_an_expired_key_is_told_so_only_to_who_holds_it() -> None:
    assert refusal(f"Bearer {KEY}x", entry(expires=NOW)) == WRONG_KEY


def test_the_entry_shows_no_digest() -> None:
    assert digest_of(KEY) not in repr(entry())
