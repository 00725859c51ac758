"""The composition root: a configuration in, bound Serve deployments out.

`serve run FILE` calls `build` with what stands under `args:`.
"""

from __future__ import annotations

import actors.own_package  # isort: skip  (before the first import of `cluster`)

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from ray.experimental.internal_kv import (
    _internal_kv_get,
    _internal_kv_initialized,
    _internal_kv_put,
)
from ray.serve import Application

from actors.autoscaling.setup import autoscaling_of
from actors.deployments import HEALTH_PERIOD_S, bind_replica, deployment_of, replica_setups
from actors.gateway import Gateway, GatewaySetup
from actors.jobs.desk import JobsSetup
from actors.model_replica import ReplicaSetup
from actors.repository.control import RepositorySetup
from actors.serve_file import file_of, naming, read_config
from actors.tracing.spans import check_tracing
from actors.variant_facts import Origin, facts_of, origin_of
from cluster.config.serve_file import IMPORT_PATH
from cluster.config.server import KEYS_VARIABLE, MAX_NODES, NODES_VARIABLE, ServerConfig
from cluster.config.squadron import SquadronConfig
from cluster.config.storage.location import parse_location
from cluster.errors import ConfigError
from cluster.optimization.remote.mirror import open_store
from cluster.routing.table import GATEWAY, build_table, next_version

assert actors.own_package

STORE_VARIABLE = "SQUADRON_MODEL_STORE"


@dataclass(frozen=True, slots=True)
class Generations:
    read: Callable[[], bytes | None]
    write: Callable[[bytes], object]


def build(args: dict[str, object]) -> Application:
    """Raises: ConfigError naming the file (where it can be found), key, value and what is
    allowed."""
    file = file_of(args)
    try:
        return _bound(with_environment(read_config(args, file), os.environ))
    except ConfigError as error:
        raise naming(error, file) from None


def __getattr__(name: str) -> NoReturn:
    # Of an `import_path` that is misspelt, Serve shows this and nothing else.
    raise AttributeError(f"module {__name__!r} has no {name!r}; import_path is {IMPORT_PATH!r}")


def with_environment(config: SquadronConfig, environment: Mapping[str, str]) -> SquadronConfig:
    """What one file does not say for all places where it runs: on how many nodes there are doors,
    and where the API keys lie. Raises: ConfigError for no number of nodes."""
    changes: dict[str, object] = {}
    keys = environment.get(KEYS_VARIABLE, "")
    if keys and not config.server.api_keys:
        changes["api_keys"] = keys
    nodes = environment.get(NODES_VARIABLE, "")
    if nodes:
        if not nodes.isdecimal() or not 1 <= int(nodes) <= MAX_NODES:
            raise ConfigError(
                f"{NODES_VARIABLE}: {nodes!r} is no number of nodes; allowed: 1 to {MAX_NODES}",
                key=NODES_VARIABLE,
                value=nodes,
                allowed=f"1 to {MAX_NODES}",
            )
        changes["nodes"] = int(nodes)
    server = config.server.model_copy(update=changes)
    return config.model_copy(update={"server": server})


def next_generation(now_ns: int, kept: Generations | None = None) -> int:
    """Of the configuration that is being built: above every earlier one of this cluster, also when
    the clock was set back meanwhile, or is another machine's. `kept`: where the last one is; Ray's
    store by default, which lives as long as any door that has one. Without Ray nothing came
    before."""
    if kept is None:
        if not _internal_kv_initialized():
            return now_ns
        kept = Generations(
            read=lambda: _internal_kv_get(b"generation", namespace=b"squadron"),
            write=lambda text: _internal_kv_put(
                b"generation", text, overwrite=True, namespace=b"squadron"
            ),
        )
    found = next_version(now_ns, int(kept.read() or 0))
    kept.write(str(found).encode())
    return found


def check_postgres(config: SquadronConfig) -> None:
    """Raises: ConfigError when its client is not installed."""
    if config.server.state_postgres.url and find_spec("psycopg_pool") is None:
        raise ConfigError(
            "PostgreSQL needs its client: pip install 'squadron-serve[postgres]'",
            key="server.state_postgres.url",
        )


def _bound(config: SquadronConfig) -> Application:
    check_postgres(config)
    check_tracing(config.server.tracing)
    store = open_store(store_location(config), config.store.cache)
    is_controlled = config.server.repository_control == "explicit"
    if is_controlled:
        config = never_colocated(config)
    origins: dict[str, Origin] = {}
    facts = {}
    for name, variant in config.variants.items():
        origin = origin_of(name, variant, store)
        facts[name] = facts_of(name, variant, origin)
        if isinstance(origin, Origin) and not facts[name].unavailable:
            origins[name] = origin
    server = with_whole_paths(config.server)
    limits = server.limits
    setups: dict[str, ReplicaSetup] = {}
    for name, found in replica_setups(config.variants, origins, server).items():
        if isinstance(found, ConfigError):
            facts[name] = facts_of(name, config.variants[name], found)
            continue
        setups[name] = found
        shards = () if found.sharding is None else found.sharding.shards()
        facts[name] = replace(facts[name], placement=found.placement_reason, shards=shards)
    table = build_table(config, facts)
    replicas = [
        bind_replica(setup, config.variants[name], limits.default_timeout_s)
        for name, setup in setups.items()
        # Serve cannot take one deployment out of an application: models that can be unloaded are
        # applications of their own, deployed by the controller.
        if not facts[name].is_colocated and not is_controlled
    ]
    colocated = tuple(setup for name, setup in setups.items() if facts[name].is_colocated)
    doors_per_node = config.server.doors_per_node
    gateway = deployment_of(Gateway).options(
        name=GATEWAY,
        num_replicas=doors_per_node * config.server.nodes,
        max_ongoing_requests=limits.max_in_flight,
        health_check_period_s=HEALTH_PERIOD_S,
        # A new door stands before an old one goes, also when there is only one.
        max_surge_percent=100,
        graceful_shutdown_timeout_s=limits.default_timeout_s + limits.grpc_leave_s + 5,
        graceful_shutdown_wait_loop_s=0.5,
        ray_actor_options={"num_cpus": 0.1},
    )
    if config.server.nodes > 1:
        # Twice, because a new door stands beside the old one for a while.
        gateway = gateway.options(max_replicas_per_node=2 * doors_per_node)
    setup = GatewaySetup(
        server=server,
        table=table,
        colocated=colocated,
        generation=next_generation(time.time_ns()),
        autoscaling=autoscaling_of(config),
        repository=RepositorySetup(config=config, store=store) if is_controlled else None,
        jobs=JobsSetup(config=config, store=store, is_controlled=is_controlled),
        state_place=f"{config.server.name}\0{store_location(config)}",
    )
    # The models are arguments only so that Serve deploys them with the door: it finds them by name.
    return gateway.bind(setup, *replicas)


def never_colocated(config: SquadronConfig) -> SquadronConfig:
    """A model that a door holds could not be unloaded without its door."""
    variants = {
        name: variant.model_copy(update={"colocate": "never"})
        for name, variant in config.variants.items()
    }
    return config.model_copy(update={"variants": variants})


def with_whole_paths(server: ServerConfig) -> ServerConfig:
    """Doors run in folders of their own; paths start where Serve was started."""
    changes: dict[str, object] = {}
    if server.api_keys:
        changes["api_keys"] = str(Path(server.api_keys).absolute())
    if server.tls is not None:
        files = {name: value for name, value in server.tls.model_dump().items() if value}
        whole = {name: str(Path(value).absolute()) for name, value in files.items()}
        changes["tls"] = server.tls.model_copy(update=whole)
    return server.model_copy(update=changes)


def store_location(config: SquadronConfig) -> str:
    """The environment's store goes before the file's, so that one file serves everywhere. A folder
    is given whole: doors and replicas run in folders of their own."""
    location = os.environ.get(STORE_VARIABLE) or config.store.path
    found = parse_location(location)
    return str(found.resolve()) if isinstance(found, Path) else location
