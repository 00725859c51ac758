"""What the environment says beside the configuration."""

from __future__ import annotations

import pytest

from actors.app import with_environment
from cluster.config.squadron import SquadronConfig
from cluster.errors import ConfigError


def config(**server: object) -> SquadronConfig:
    return SquadronConfig.model_validate({"server": server, "variants": {"m": {"source": "m"}}})


def test_without_anything_in_the_environment_the_configuration_stands() -> None:
    assert with_environment(config(nodes=3), {}) == config(nodes=3)


def test_the_number_of_nodes_goes_before_the_file_s() -> None:
    assert with_environment(config(nodes=3), {"SQUADRON_NODES": "5"}).server.nodes == 5


@pytest.mark.parametrize("value", ["0", "-1", "two", "2.5", "99999"])
def test_what_is_no_number_of_nodes_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="SQUADRON_NODES"):
        with_environment(config(), {"SQUADRON_NODES": value})


def test_keys_are_taken_from_where_the_environment_says_unless_the_file_names_some() -> None:
    environment = {"SQUADRON_API_KEYS": "/etc/keys.json"}

    assert with_environment(config(), environment).server.api_keys == "/etc/keys.json"
    assert with_environment(config(api_keys="own.json"), environment).server.api_keys == "own.json"
