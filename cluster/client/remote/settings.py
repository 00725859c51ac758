"""How a server is talked to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.client.remote.coding import Compression
from cluster.client.remote.retry import Retry
from cluster.errors import ConfigError

SCHEMES = ("http://", "https://", "grpc://", "grpcs://")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """`timeout_s` holds for each attempt by itself. `verify`: False, or a file of certificates to
    trust. `uses_shared_memory`: see `SharedInputs`.

    Raises: ConfigError naming the setting, its value and what is allowed.
    """

    url: str
    api_key: str = field(default="", repr=False)
    timeout_s: float = 30.0
    retry: Retry = field(default_factory=Retry)
    compression: Compression | None = None
    max_connections: int = 100
    headers: Mapping[str, str] = field(default_factory=dict)
    verify: bool | str = True
    uses_shared_memory: bool = False

    def __post_init__(self) -> None:
        if not self.url.startswith(SCHEMES):
            raise ConfigError(
                f"{self.url!r} is no address of a server; allowed: http://HOST:PORT, "
                "https://HOST:PORT, grpc://HOST:PORT, grpcs://HOST:PORT",
                key="url",
                value=self.url,
            )
        if self.compression not in (None, "gzip", "deflate"):
            raise ConfigError(
                f"compression is {self.compression!r}; allowed: gzip, deflate, None",
                key="compression",
                value=str(self.compression),
                allowed="gzip, deflate",
            )
        if not self.timeout_s > 0:
            raise ConfigError(
                f"timeout_s is {self.timeout_s}; allowed: above 0",
                key="timeout_s",
                value=self.timeout_s,
            )
        if self.uses_shared_memory and not self.is_http:
            raise ConfigError(
                "shared_memory works over HTTP only: give http://HOST:PORT", key="shared_memory"
            )

    @property
    def is_http(self) -> bool:
        return self.url.startswith(("http://", "https://"))
