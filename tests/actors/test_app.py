"""What the environment says beside the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray import cloudpickle
from ray.serve.schema import ServeDeploySchema

from actors.app import Generations, build, next_generation, with_environment
from cluster.config.squadron import SquadronConfig
from cluster.errors import ConfigError
from cluster.kubernetes.render import serve_config


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


def test_a_configuration_is_newer_than_the_last_one_also_when_the_clock_was_set_back() -> None:
    kept = [b""]

    def write(text: bytes) -> None:
        kept[0] = text

    generations = Generations(read=lambda: kept[0], write=write)

    built = [next_generation(now_ns, generations) for now_ns in (5_000, 9_000, 2_000, 2_001, 9_500)]

    # A controller leaves aside what is not greater than what it has: the doors' new table, too.
    assert built == sorted(set(built))
    assert built[-1] == 9_500


def test_no_secret_is_in_what_serve_is_given(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Serve logs the arguments and its dashboard shows them; replicas get theirs pickled."""
    pytest.importorskip("psycopg_pool", reason="the extra `postgres` is not installed")
    caplog.set_level(0)
    monkeypatch.setenv("SQUADRON_TEST_PASSWORD", "hunter2")
    content = yaml.safe_load((root / "serve_configs/dev.yaml").read_text())
    content["applications"][0]["args"]["server"] = {
        "state_postgres": {"url": "postgresql://u:${SQUADRON_TEST_PASSWORD}@db/x"},
        "state_redis": {"url": "redis://:${SQUADRON_TEST_PASSWORD}@r:6379"},
        "cache": {"backend": "redis", "redis": {"url": "redis://:${SQUADRON_TEST_PASSWORD}@r"}},
        "restricted": [{"apis": ["trace"], "header": "key", "value": "${SQUADRON_TEST_PASSWORD}"}],
    }
    sent = ServeDeploySchema.model_validate(content)
    rendered = serve_config(content, store="/models", source="dev.yaml")
    app = build(sent.applications[0].args)
    given = cloudpickle.dumps(app)

    assert given.count(b"${SQUADRON_TEST_PASSWORD}") >= 4
    assert b"hunter2" not in given
    for text in (sent.model_dump_json(), rendered, repr(app._bound_deployment), caplog.text):
        assert "hunter2" not in text
