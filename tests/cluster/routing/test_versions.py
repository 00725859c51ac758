from __future__ import annotations

import pytest

from cluster.errors import ConfigError
from cluster.routing.versions import Served, check_versions, versions_by_model

SCALER = [
    Served(route="scaler", model="scaler", version="12"),
    Served(route="scaler-v9", model="scaler", version="9"),
    Served(route="other", model="other", version="9"),
]


def test_versions_rise_as_numbers_and_each_has_its_route() -> None:
    found = versions_by_model(SCALER)

    assert found == {"scaler": {"9": "scaler-v9", "12": "scaler"}, "other": {"9": "other"}}
    assert list(found["scaler"]) == ["9", "12"]
    check_versions(SCALER)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("12", "it is version 12; scaler itself, the highest, is 12"),
        ("13", "it is version 13; scaler itself, the highest, is 12"),
        ("9", "the highest, is 12, and scaler-v9 is this version already"),
    ],
)
def test_a_version_that_is_there_already_or_too_high_is_named(version: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        check_versions([*SCALER, Served(route="more", model="scaler", version=version)])

    assert caught.value.details["key"] == "variants.more.version_of"
