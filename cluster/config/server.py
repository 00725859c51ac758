"""Where the doors listen and what they accept."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from cluster.config.cache import (
    POSTGRES_SCHEMES,
    CacheConfig,
    PostgresConfig,
    RedisConfig,
    check_scheme,
)
from cluster.config.observability.logs import LogsConfig
from cluster.config.observability.tracing import TracingConfig
from cluster.config.section import Mistake, Mistakes, Section
from cluster.config.security.restricted import RestrictedApis
from cluster.config.security.tls import TlsConfig

NODES_VARIABLE = "SQUADRON_NODES"
KEYS_VARIABLE = "SQUADRON_API_KEYS"
MAX_NODES = 4096

GrpcCompression = Literal["none", "low", "medium", "high"]


class ListenerConfig(Section):
    """`host` is loopback unless told otherwise; pods say `0.0.0.0`. Port 0: the system chooses."""

    host: str = "127.0.0.1"
    port: int = Field(ge=0, le=65535)


class LimitsConfig(Section):
    """What requests may cost. Sizes in bytes, times in seconds.

    `max_response_bytes`: of one answer before it is compressed, or of one message of a stream;
    what is larger is an error (413, RESOURCE_EXHAUSTED) in its place.
    `max_buffered_bytes`: of all requests at a door's HTTP port together, bodies until they are
    answered and answers until they are read; what comes beyond it is refused with a 503. As many
    again at its gRPC port, for messages until they are answered. `max_in_flight` requests are under
    way at once, and twice as many calls at the gRPC port, streams that wait among them.
    `max_connections`: open at a door's HTTP port at once; one more is told so with a 503.
    `send_timeout_s`: a caller that takes less than 1 KiB/s of its answer for so long is given up.
    `grpc_connection_age_s`: after so long (give or take a tenth) a gRPC client is asked to open
    another connection, which costs it nothing but that; a door that is replaced leaves when its
    last connection has.
    """

    max_body_bytes: int = Field(default=64 * 2**20, gt=0)
    max_response_bytes: int = Field(default=256 * 2**20, gt=0, lt=2**31)
    max_buffered_bytes: int = Field(default=2**30, gt=0)
    max_in_flight: int = Field(default=4096, gt=0)
    max_connections: int = Field(default=16384, gt=0)
    default_timeout_s: float = Field(default=60.0, gt=0, le=3600)
    header_timeout_s: float = Field(default=30.0, gt=0)
    keep_alive_timeout_s: float = Field(default=90.0, gt=0)
    send_timeout_s: float = Field(default=30.0, gt=0)
    grpc_connection_age_s: float = Field(default=30.0, ge=1, le=3600)

    @property
    def grpc_leave_s(self) -> float:
        """In which every gRPC connection has been asked to end, with time to do so."""
        return 1.1 * self.grpc_connection_age_s + 2.0

    @model_validator(mode="after")
    def _one_body_fits(self) -> Self:
        if self.max_buffered_bytes < self.max_body_bytes:
            raise ValueError(
                f"max_buffered_bytes {self.max_buffered_bytes} is less than max_body_bytes "
                f"{self.max_body_bytes}; a single request must fit"
            )
        return self


class SharedMemoryConfig(Section):
    """Tensors in the callers' own shared memory, for callers on this machine.

    `prefixes`: what the key of a shared-memory object must begin with; "/" allows every object
    that the server's user can open, also other programs'.
    """

    enabled: bool = False
    prefixes: tuple[str, ...] = ("/squadron_",)
    max_region_bytes: int = Field(default=2**30, gt=0)
    max_regions: int = Field(default=256, gt=0, le=4096)

    @model_validator(mode="after")
    def _prefixes_begin_at_the_root(self) -> Self:
        wrong = [prefix for prefix in self.prefixes if not prefix.startswith("/")]
        if wrong:
            raise ValueError(f"prefixes holds {wrong[0]!r}; every prefix begins with '/'")
        return self


class ServerConfig(Section):
    """The doors: HTTP, gRPC and metrics, as Triton numbers them. `nodes`: on how many nodes of the
    cluster there are doors; the environment's `SQUADRON_NODES` goes before it.

    `name` and `version` are what clients are told; the installed version when none is given.
    `repository_control: explicit` lets callers on the server's own machine load and unload models;
    each model is then an application of its own, never held by a door.
    `grpc_compression`: how hard answers over gRPC are compressed for callers that accept it; with
    `none` only for those that send `accept-encoding: gzip` (or `deflate`) as metadata.
    `base_path` begins every HTTP path (`/triton` serves `/triton/v2/...`), except the probes under
    `/-/` and `/metrics`. `state_folder`: where what was set and counted at run time outlives the
    cluster; empty: `$SQUADRON_STATE`, else `~/.local/state/squadron`. With
    `state_redis.url` it is in that Redis too, with `state_postgres.url` in that PostgreSQL, with
    every event and every value of feedback (in streams, as rows). `api_keys`: the file that
    `squadron keys` writes; with it every route and call needs a key, but for probes. Relative to
    where Serve was started; `SQUADRON_API_KEYS` of the environment where the file names none.
    """

    name: str = Field(default="squadron", min_length=1)
    version: str = ""
    doors_per_node: int = Field(default=1, ge=1, le=64)
    nodes: int = Field(default=1, ge=1, le=MAX_NODES)
    http: ListenerConfig = ListenerConfig(port=8000)
    grpc: ListenerConfig = ListenerConfig(port=8001)
    metrics: ListenerConfig = ListenerConfig(port=8002)
    limits: LimitsConfig = LimitsConfig()
    shared_memory: SharedMemoryConfig = SharedMemoryConfig()
    cache: CacheConfig = CacheConfig()
    repository_control: Literal["none", "explicit"] = "none"
    restricted: tuple[RestrictedApis, ...] = ()
    api_keys: str = ""
    tls: TlsConfig | None = None
    grpc_compression: GrpcCompression = "none"
    base_path: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    state_folder: str = ""
    state_redis: RedisConfig = RedisConfig()
    state_postgres: PostgresConfig = PostgresConfig()
    tracing: TracingConfig | None = None
    logging: LogsConfig = LogsConfig()

    @model_validator(mode="after")
    def _stores_have_addresses(self) -> Self:
        if self.state_redis.url:
            check_scheme("state_redis.url", self.state_redis.url)
        if self.state_postgres.url:
            check_scheme("state_postgres.url", self.state_postgres.url, POSTGRES_SCHEMES)
        return self

    @model_validator(mode="after")
    def _every_port_is_its_own(self) -> Self:
        owners: dict[int, str] = {}
        mistakes = []
        for key in ("http", "grpc", "metrics"):
            port: int = getattr(self, key).port
            owner = owners.setdefault(port, key) if port else key
            if owner != key:
                mistakes.append(
                    Mistake(
                        key=f"{key}.port",
                        text=f"{owner}.port is the same",
                        value=str(port),
                        allowed="a port of its own, or 0 for any free one",
                    )
                )
        if mistakes:
            raise Mistakes(mistakes)
        return self

    @model_validator(mode="after")
    def _every_api_has_one_key(self) -> Self:
        named = [api for entry in self.restricted for api in entry.apis]
        for api in named:
            if named.count(api) > 1:
                raise ValueError(f"restricted names {api} more than once")
        return self
