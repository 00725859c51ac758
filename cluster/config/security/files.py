"""The files that the doors will read: looked at before Ray is started for nothing."""

from __future__ import annotations

from pathlib import Path

from cluster.config.security.api_keys import read_keys
from cluster.config.server import ServerConfig
from cluster.errors import ConfigError


def check_files(server: ServerConfig) -> None:
    """Raises: ConfigError naming key and file."""
    if server.api_keys:
        read_keys(Path(server.api_keys))
    if server.tls is None:
        return
    for name in ("cert", "key", "client_ca"):
        file = getattr(server.tls, name)
        if file:
            check_readable(f"server.tls.{name}", Path(file))


def check_readable(key: str, file: Path) -> None:
    """Raises: ConfigError."""
    try:
        file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {file}: {error.strerror}", key=key, value=str(file)) from None
