"""The response cache: one section of the server, one of each model that uses it."""

from __future__ import annotations

from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from cluster.config.section import Section
from cluster.config.security.references import SecretAddress, is_reference


class ResponseCacheConfig(Section):
    """Whether a model's answers are kept. Only for models that answer the same to the same inputs.

    `namespace_by_tenant`: tenants do not share answers, so that none can tell from an answer's
    speed what another one asked.
    """

    enabled: bool = False
    ttl_s: float = Field(default=300.0, gt=0, le=30 * 86400)
    namespace_by_tenant: bool = False


class PreprocessCacheConfig(Section):
    """Whether a replica keeps what its preprocessing makes of inputs (a decoded photo, a tokenised
    text), for requests whose answer is not kept or asks for something else. `size_bytes`: of each
    replica.
    """

    enabled: bool = False
    ttl_s: float = Field(default=300.0, gt=0, le=30 * 86400)
    size_bytes: int = Field(default=64 * 2**20, gt=0)


class RedisConfig(Section):
    """`url`: `redis://user:${NAME}@host:6379/0`; passwords are references, to the environment or
    (`${file:/path}`) to a file, or the whole url is one. `timeout_s` bounds what a request may wait
    for Redis; after a failure nothing is asked for `retry_after_s`. `prefix` begins every key, so
    that several servers can share one Redis.
    """

    url: SecretAddress = ""
    prefix: str = "squadron"
    timeout_s: float = Field(default=0.05, gt=0, le=5)
    retry_after_s: float = Field(default=5.0, gt=0, le=3600)
    max_connections: int = Field(default=16, ge=1, le=1024)


class PostgresConfig(Section):
    """`url`: `postgresql://user:${NAME}@host:5432/database`, its password as
    Redis'. Tables begin with `prefix`. Nobody waits for PostgreSQL but a controller that starts: at
    most `timeout_s`. After a failure nothing is written for `retry_after_s`; meanwhile at most
    `max_waiting` rows are held, the newest ones.
    """

    url: SecretAddress = ""
    prefix: str = Field(default="squadron", pattern=r"^[a-z_][a-z0-9_]{0,39}$")
    timeout_s: float = Field(default=2.0, gt=0, le=60)
    retry_after_s: float = Field(default=5.0, gt=0, le=3600)
    max_connections: int = Field(default=2, ge=1, le=64)
    max_waiting: int = Field(default=100_000, ge=1)


class CacheConfig(Section):
    """`size_bytes` bounds the answers kept in each door's memory. With `backend: redis` the doors
    of the whole cluster share their answers too.
    """

    size_bytes: int = Field(default=64 * 2**20, gt=0)
    backend: Literal["memory", "redis"] = "memory"
    redis: RedisConfig = RedisConfig()

    @model_validator(mode="after")
    def _redis_has_an_address(self) -> Self:
        if self.backend == "redis":
            check_scheme("redis.url", self.redis.url)
        return self


REDIS_SCHEMES = ("redis", "rediss", "unix")
POSTGRES_SCHEMES = ("postgresql", "postgres")


def check_scheme(key: str, url: str, allowed: tuple[str, ...] = REDIS_SCHEMES) -> None:
    """Of an address that is a reference as a whole, nothing is known before it is read.

    Raises: ValueError.
    """
    if is_reference(url):
        return
    scheme = urlsplit(url).scheme
    if scheme not in allowed:
        names = [f"{each}://" for each in allowed]
        told = f"{', '.join(names[:-1])} or {names[-1]}"
        # The address may hold a password: only its scheme is shown.
        raise ValueError(f"{key} must begin with {told}, got {scheme!r}")
