"""The response cache's sections of the configuration."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.config.cache import CacheConfig, ResponseCacheConfig
from cluster.config.server import ServerConfig
from cluster.config.variant import VariantConfig
from cluster.config.yaml_file import check_section
from cluster.errors import ConfigError


def test_answers_are_not_kept_unless_a_model_says_so() -> None:
    assert not ResponseCacheConfig().enabled
    assert ServerConfig().cache.backend == "memory"


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://localhost", "//x"])
def test_a_redis_without_a_redis_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="redis://"):
        check_section({"backend": "redis", "redis": {"url": url}}, CacheConfig, source="test")


def test_the_address_is_not_shown_when_it_is_refused() -> None:
    """It may hold a password."""
    section = {"backend": "redis", "redis": {"url": "tcp://user:secret@host"}}

    with pytest.raises(ConfigError) as error:
        check_section(section, CacheConfig, source="test")

    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["redis://host:6379/0", "rediss://host", "unix:///run/redis.sock"])
def test_redis_is_reached_by_its_own_schemes(url: str) -> None:
    config = CacheConfig.model_validate({"backend": "redis", "redis": {"url": url}})

    assert config.redis.url == url


@pytest.mark.parametrize("section", [{"ttl_s": 0}, {"ttl_s": -1}, {"size": 1}])
def test_a_wrong_setting_is_refused(section: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        check_section(section, ResponseCacheConfig, source="test")


@pytest.mark.parametrize(
    "kind", [{"sequences": {}}, {"source": None, "card": {"format": "python", "decoupled": True}}]
)
def test_a_model_that_remembers_or_streams_keeps_no_answers(kind: dict[str, Any]) -> None:
    tensors = [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}]
    signature = {"inputs": tensors, "outputs": tensors}
    card = {"name": "m", "python_class": "m:M", "signature": signature}
    section = {"source": "m", "response_cache": {"enabled": True}, **kind}
    if section.get("card"):
        section["card"] = card | section["card"]

    with pytest.raises(ConfigError, match="response_cache excludes sequences and decoupled"):
        check_section(section, VariantConfig, source="test")
