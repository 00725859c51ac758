"""What keys may do, and that what nobody named needs an admin's."""

from __future__ import annotations

import pytest

from cluster.access.keys import Caller
from cluster.access.needs import Need, check_need, need_of_path, need_of_rpc
from cluster.config.security.api_keys import ApiKey
from cluster.errors import Forbidden


def caller(*scopes: str) -> Caller:
    return Caller(key=ApiKey(id="0" * 12, name="app", sha256="0" * 64, scopes=scopes))


def may(need: Need, model: str, *scopes: str) -> bool:
    try:
        check_need(need, caller(*scopes), model)
    except Forbidden:
        return False
    return True


def test_what_is_new_needs_an_admin() -> None:
    assert need_of_path("GET", "/v2/new") == "admin"
    assert need_of_path("DELETE", "/v2/health/live") == "admin"
    assert need_of_rpc("NewCall") == "admin"


@pytest.mark.parametrize(
    ("need", "model", "allowed"),
    [
        ("nothing", "", {"infer", "infer:a", "infer:b", "admin", "metrics"}),
        ("a key", "", {"infer", "infer:a", "infer:b", "admin", "metrics"}),
        ("the model", "a", {"infer", "infer:a", "admin"}),
        ("the model", "", {"infer", "admin"}),
        ("every model", "", {"infer", "admin"}),
        ("inference", "", {"infer", "infer:a", "infer:b", "admin"}),
        ("metrics", "", {"metrics", "admin"}),
        ("admin", "", {"admin"}),
    ],
)
def test_a_scope_opens_what_it_says(need: Need, model: str, allowed: set[str]) -> None:
    scopes = ("infer", "infer:a", "infer:b", "admin", "metrics")

    assert {each for each in scopes if may(need, model, each)} == allowed


def test_scopes_add_up() -> None:
    assert may("the model", "b", "infer:a", "infer:b")
    assert may("metrics", "", "infer:a", "metrics")
    assert not may("the model", "a:b", "infer:a")
