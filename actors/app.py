"""The composition root: a configuration in, bound Serve deployments out.

`serve run FILE` calls `build` with what stands under `args:`.
"""

from __future__ import annotations

import actors.own_package  # isort: skip  (before the first import of `cluster`)

import os
import time
from pathlib import Path
from typing import cast

from ray import serve
from ray.serve import Application, Deployment
from ray.serve.config import RequestRouterConfig

from actors.gateway import Gateway, GatewaySetup
from actors.model_replica import ReplicaSetup
from actors.replica_host import ReplicaHost
from actors.variant_facts import Origin, facts_of, origin_of
from cluster.config.squadron import SquadronConfig
from cluster.config.store import ModelStore
from cluster.config.variant import VariantConfig
from cluster.config.yaml_file import check_section
from cluster.routing.table import GATEWAY, build_table, deployment_name

assert actors.own_package

HEALTH_PERIOD_S = 1.0
CONSISTENT_HASHING = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"
STORE_VARIABLE = "SQUADRON_MODEL_STORE"


def build(args: dict[str, object]) -> Application:
    """Raises: ConfigError naming key, value and what is allowed."""
    config = check_section(args, SquadronConfig, source="the application's args")
    store = ModelStore(store_path(config))
    origins: dict[str, Origin] = {}
    facts = {}
    for name, variant in config.variants.items():
        origin = origin_of(name, variant, store)
        facts[name] = facts_of(name, variant, origin)
        if isinstance(origin, Origin) and not facts[name].unavailable:
            origins[name] = origin
    table = build_table(config, facts)
    limits = config.server.limits
    setups = {name: _setup(name, config.variants[name], origin) for name, origin in origins.items()}
    replicas = [
        _replica(setup, config.variants[name], limits.default_timeout_s)
        for name, setup in setups.items()
        if not facts[name].is_colocated
    ]
    colocated = tuple(setup for name, setup in setups.items() if facts[name].is_colocated)
    gateway = _deployment(Gateway).options(
        name=GATEWAY,
        num_replicas=config.server.doors_per_node,
        max_ongoing_requests=limits.max_in_flight,
        health_check_period_s=HEALTH_PERIOD_S,
        # A new door stands before an old one goes, also when there is only one.
        max_surge_percent=100,
        graceful_shutdown_timeout_s=limits.default_timeout_s + 5,
        graceful_shutdown_wait_loop_s=0.5,
        ray_actor_options={"num_cpus": 0.1},
    )
    setup = GatewaySetup(
        server=config.server, table=table, colocated=colocated, generation=time.time_ns()
    )
    # The models are arguments only so that Serve deploys them with the door: it finds them by name.
    return gateway.bind(setup, *replicas)


def store_path(config: SquadronConfig) -> Path:
    """The environment's store goes before the file's, so that one file serves everywhere."""
    return Path(os.environ.get(STORE_VARIABLE) or config.store.path).resolve()


def _setup(name: str, variant: VariantConfig, origin: Origin) -> ReplicaSetup:
    return ReplicaSetup(
        variant=name,
        card=origin.card,
        folder=origin.folder,
        engine=origin.engine,
        device=variant.device,
        threads=variant.threads,
        is_processed=variant.processed,
        batching=variant.batching,
        sequences=variant.sequences,
        options=dict(variant.options),
    )


def _replica(setup: ReplicaSetup, variant: VariantConfig, timeout_s: float) -> Application:
    resources = variant.resources
    options: dict[str, object] = {"num_cpus": resources.num_cpus}
    if resources.num_gpus is not None:
        options["num_gpus"] = resources.num_gpus
    if resources.memory_bytes is not None:
        options["memory"] = resources.memory_bytes
    router = RequestRouterConfig()
    if setup.sequences is not None:
        # Where a door reaches them by Serve's handle, a sequence stays on its replica as well.
        router = RequestRouterConfig(
            # Serve declares a path as well; its type stub is that of pydantic's first version.
            request_router_class=CONSISTENT_HASHING  # type: ignore[arg-type]
        )
    deployment = _deployment(ReplicaHost).options(
        name=deployment_name(setup.variant),
        num_replicas=variant.replicas,
        # Our doors decide admission and deadlines; Serve's own limits stay looser.
        max_ongoing_requests=4096,
        health_check_period_s=HEALTH_PERIOD_S,
        # On a GPU there is rarely room for a second copy; elsewhere the new one starts first.
        max_surge_percent=0 if resources.num_gpus else 100,
        graceful_shutdown_timeout_s=timeout_s + 5,
        graceful_shutdown_wait_loop_s=0.5,
        ray_actor_options=options,
        request_router_config=router,
    )
    return deployment.bind(setup)


def _deployment(kind: type) -> Deployment:
    """`serve.deployment` of a class, with the type that it has."""
    return cast(Deployment, serve.deployment(kind))
