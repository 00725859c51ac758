"""Secrets stand outside the config: how they are named, and that none is repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config.cache import POSTGRES_SCHEMES, REDIS_SCHEMES
from cluster.config.security.exposure import warnings_of
from cluster.config.security.files import check_files
from cluster.config.security.references import resolve, resolve_address
from cluster.config.serve_file import read_serve_file
from cluster.config.server import ServerConfig
from cluster.config.squadron import SquadronConfig
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError

SECRET = "hunter2/@%:"
KEY = "server.state_postgres.url"


def refused(server: dict[str, Any], **more: Any) -> str:
    given = {"server": server, "variants": {"m": {"source": "m"}}, **more}
    with pytest.raises(ConfigError) as wrong:
        check_section(given, SquadronConfig, source="prod.yaml")
    return wrong.value.message


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"state_postgres": {"url": "postgresql://u:hunter2@db/x"}}, "state_postgres.url"),
        ({"state_postgres": {"url": "postgresql://db/x?password=hunter2"}}, "state_postgres.url"),
        ({"state_redis": {"url": "redis://:hunter2@r:6379"}}, "state_redis.url"),
        ({"state_redis": {"url": "redis://:hunter2${NAME}@r:6379"}}, "state_redis.url"),
        ({"cache": {"redis": {"url": "rediss://u:hunter2@r"}}}, "cache.redis.url"),
    ],
)
def test_a_password_in_clear_is_refused_with_the_way_to_write_it(
    section: dict[str, Any], key: str
) -> None:
    told = refused(section)

    assert f"prod.yaml: server.{key}: holds a password in clear" in told
    assert "allowed: ${NAME} (environment) or ${file:/path} in its place" in told
    assert "hunter2" not in told


def test_what_looks_like_a_key_is_refused_wherever_it_stands() -> None:
    url = "https://user:hunter2@models.example.com"
    told = refused({"name": "hf_0123456789abcdef0123"}, experiments={"e": {"split": {"m": 1},
                   "match": [{"header": "x", "value": url, "arm": "m"}]}})  # fmt: skip

    assert "server.name: holds what looks like a secret" in told
    assert "experiments.e.match.0.value: holds what looks like a secret" in told
    assert "hunter2" not in told
    assert "hf_0" not in told


def test_an_environment_for_the_replicas_is_no_place_for_a_secret(
    tmp_path: Path, root: Path
) -> None:
    content = yaml.safe_load((root / "serve_configs/dev.yaml").read_text())
    content["applications"][0]["runtime_env"] = {
        "env_vars": {"AWS_SECRET_ACCESS_KEY": "hunter2", "OMP_NUM_THREADS": "1"}
    }
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content))

    with pytest.raises(ConfigError) as wrong:
        read_serve_file(file)

    assert "applications.0.runtime_env.env_vars.AWS_SECRET_ACCESS_KEY" in wrong.value.message
    assert "OMP" not in wrong.value.message
    assert "hunter2" not in wrong.value.message


def test_a_reference_is_read_where_it_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(SECRET + "\n")
    quoted = "hunter2%2F%40%25%3A"
    both = ("${PASSWORD}", f"${{file:{file}}}")
    texts = [f"postgresql://u:{each}@db:5432/x" for each in both]

    for text in texts:
        config = ServerConfig.model_validate({"state_postgres": {"url": text}})
        found = resolve_address(
            config.state_postgres.url, {"PASSWORD": SECRET}, POSTGRES_SCHEMES, key=KEY
        )
        assert config.state_postgres.url == text
        assert found == f"postgresql://u:{quoted}@db:5432/x"
    assert resolve(both[1], {}, key="k") == SECRET


def test_the_whole_address_may_be_a_reference() -> None:
    config = ServerConfig.model_validate({"state_redis": {"url": "${REDIS_URL}"}})
    whole = "rediss://u:a%2Fb@[::1]:6380/0"

    read = resolve_address(config.state_redis.url, {"REDIS_URL": whole}, REDIS_SCHEMES, key="k")

    assert read == whole


def test_several_hosts_of_one_postgresql_are_one_address() -> None:
    text = "postgresql://u:${P}@one:5432,two:5433/x?target_session_attrs=any"

    assert "one:5432,two:5433" in resolve_address(text, {"P": "p"}, POSTGRES_SCHEMES, key=KEY)


@pytest.mark.parametrize(
    "whole",
    [
        "postgresql://u:hun/ter2@db/x",
        "postgresql://u:hun@ter2@db/x",
        "postgresql://u:hunter2%@db/x",
        "mysql://u:hunter2@db/x",
        "hunter2",
    ],
)
def test_an_address_that_is_none_is_told_without_it(whole: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.state_postgres\.url.*\$\{URL\}") as wrong:
        resolve_address("${URL}", {"URL": whole}, POSTGRES_SCHEMES, key=KEY)

    assert "ter2" not in wrong.value.message


def test_a_reference_to_nothing_names_key_and_reference(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SQUADRON_NO_SUCH_NAME", raising=False)
    for reference, why in (
        ("${SQUADRON_NO_SUCH_NAME}", "the environment has no SQUADRON_NO_SUCH_NAME"),
        (f"${{file:{tmp_path}/none}}", "No such file or directory"),
    ):
        url = f"redis://:{reference}@r:6379"
        server = ServerConfig.model_validate({"state_redis": {"url": url}})
        with pytest.raises(ConfigError) as wrong:
            check_files(server)
        assert f"server.state_redis.url: {reference}: {why}" in wrong.value.message


def test_what_is_no_reference_is_refused() -> None:
    for text in ("redis://:${not a name}@r", "redis://:${file:}@r", "redis://:${open@r"):
        assert "begins no reference" in refused({"state_redis": {"url": text}})


def test_a_restricted_part_s_value_in_clear_is_told_at_the_start() -> None:
    clear = {"apis": ["trace"], "header": "k", "value": "hunter2"}
    named = {"apis": ["logging"], "header": "k", "value": "${NAME}"}
    (told,) = warnings_of(ServerConfig.model_validate({"restricted": [clear, named]}))

    assert told.startswith("server.restricted.0.value stands in the config")
    assert "hunter2" not in told
