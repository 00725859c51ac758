"""Which ports others can reach, and what then stands open."""

from __future__ import annotations

from ipaddress import ip_address

from cluster.config.security.references import WHY, is_reference
from cluster.config.server import ServerConfig
from cluster.errors import ConfigError

_PORTS = ("http", "grpc", "metrics")


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to what listens there."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_second_door(host: str, server: ServerConfig, *, source: str) -> None:
    """Serve's own ingress speaks no TLS. Raises: ConfigError where it would be a way round it."""
    if server.tls is None or is_loopback(host):
        return
    raise ConfigError(
        f"{source}: http_options.host: Serve's own ingress speaks no TLS and would be a way round "
        f"server.tls, got {host!r}; allowed: 127.0.0.1, or proxy_location: Disabled",
        file=source,
        key="http_options.host",
        value=host,
        allowed="127.0.0.1",
    )


def warnings_of(server: ServerConfig) -> tuple[str, ...]:
    """What the operator is told at the start."""
    return (*open_doors(server), *_in_clear(server))


def _in_clear(server: ServerConfig) -> tuple[str, ...]:
    """Unlike a password of an address, the value is often a mere switch, so it is no error."""
    return tuple(
        f"server.restricted.{index}.value stands in the config, and {WHY}; write ${{NAME}} "
        "(environment) or ${file:/path} in its place"
        for index, entry in enumerate(server.restricted)
        if not is_reference(entry.value)
    )


def open_doors(server: ServerConfig) -> tuple[str, ...]:
    """What other machines can reach unguarded; empty when nothing stands open."""
    reached = [name for name in _PORTS if not is_loopback(getattr(server, name).host)]
    if not reached:
        return ()
    ports = ", ".join(f"{name} {getattr(server, name).host}" for name in reached)
    found = []
    if not server.api_keys:
        found.append(
            f"other machines can reach this server ({ports}) and server.api_keys is not set: "
            "whoever reaches it can run every model. Admin and repository calls are answered on "
            "loopback only"
        )
    elif server.tls is None:
        found.append(
            f"other machines can reach this server ({ports}) and server.tls is not set: keys "
            "travel in the clear"
        )
    return tuple(found)
