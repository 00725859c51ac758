"""The files that the doors will read: looked at before Ray is started for nothing."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.config.cache import POSTGRES_SCHEMES, REDIS_SCHEMES
from cluster.config.security.api_keys import read_keys
from cluster.config.security.references import resolve, resolve_address
from cluster.config.server import ServerConfig
from cluster.errors import ConfigError


def check_files(server: ServerConfig) -> None:
    """Raises: ConfigError naming key and file."""
    _check_references(server)
    if server.api_keys:
        read_keys(Path(server.api_keys))
    if server.tls is None:
        return
    for name in ("cert", "key", "client_ca"):
        file = getattr(server.tls, name)
        if file:
            check_readable(f"server.tls.{name}", Path(file))


def _check_references(server: ServerConfig) -> None:
    """What is read here is thrown away: each process reads it for itself."""
    for name, address in (
        ("cache.redis", server.cache.redis.url if server.cache.backend == "redis" else ""),
        ("state_redis", server.state_redis.url),
        ("state_postgres", server.state_postgres.url),
    ):
        schemes = POSTGRES_SCHEMES if name == "state_postgres" else REDIS_SCHEMES
        if address:
            resolve_address(address, os.environ, schemes, key=f"server.{name}.url")
    for index, entry in enumerate(server.restricted):
        resolve(entry.value, os.environ, key=f"server.restricted.{index}.value")


def check_readable(key: str, file: Path) -> None:
    """Raises: ConfigError."""
    try:
        file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {file}: {error.strerror}", key=key, value=str(file)) from None
