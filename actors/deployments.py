"""A variant's part of the configuration as a Serve deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ray import serve
from ray.serve import Application, Deployment
from ray.serve.config import AutoscalingConfig as ServeAutoscaling
from ray.serve.config import AutoscalingPolicy, RequestRouterConfig

from actors.language.placement import deployment_options
from actors.model_replica import ReplicaSetup
from actors.replica_host import ReplicaHost
from actors.sharding.ray_starter import sharded_options
from actors.sharding.replica import placed
from actors.sharding.room import Room
from actors.variant_facts import Origin
from cluster.config.scaling.autoscaling import AutoscalingConfig
from cluster.config.server import ServerConfig
from cluster.config.variant import VariantConfig
from cluster.errors import ConfigError
from cluster.placement.automatic import is_open
from cluster.routing.table import deployment_name

HEALTH_PERIOD_S = 1.0
POLICY = "actors.autoscaling.policy:SquadronPolicy"
CONSISTENT_HASHING = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"


def replica_setups(
    variants: Mapping[str, VariantConfig],
    origins: Mapping[str, Origin],
    server: ServerConfig,
    room: Room | None = None,
) -> dict[str, ReplicaSetup | ConfigError]:
    """Of variants that share the cluster's devices: those that say where they are come first, then
    each `auto` has what the ones before it leave. The error instead only for an optional variant,
    which then is unavailable."""
    room = room or Room()
    setups: dict[str, ReplicaSetup | ConfigError] = {}
    for name in sorted(origins, key=lambda name: is_open(variants[name].placement)):
        try:
            setups[name] = replica_setup(name, variants[name], origins[name], server, room)
        except ConfigError as error:
            if not variants[name].optional:
                raise
            setups[name] = error
    return {name: setups[name] for name in origins}


def replica_setup(
    name: str,
    variant: VariantConfig,
    origin: Origin,
    server: ServerConfig,
    room: Room | None = None,
) -> ReplicaSetup:
    """`server`: of the whole configuration; a replica is told how to trace and to log. `room`: what
    is there for it, of which it takes its part.

    Raises: ConfigError naming what cannot be placed.
    """
    room = room or Room()
    found = placed(name, variant, origin, room)
    room.check(name, variant, found)
    room.take(variant, found)
    return ReplicaSetup(
        variant=name,
        card=origin.card,
        folder=origin.folder,
        remote=origin.remote,
        engine=origin.engine,
        device=variant.device,
        threads=variant.threads,
        is_processed=variant.processed,
        batching=variant.batching,
        limits=variant.limits,
        sequences=variant.sequences,
        llm=origin.llm or variant.llm,
        sharding=found.sharding,
        placement_reason=found.reason,
        planned_gpus=found.num_gpus,
        version_of=variant.version_of,
        preprocess_cache=variant.preprocess_cache,
        options=dict(variant.options),
        tracing=server.tracing,
        logs=server.logging,
    )


def bind_replica(
    setup: ReplicaSetup, variant: VariantConfig, timeout_s: float, *, deployment: str = ""
) -> Application:
    """`deployment`: its name when it is not the variant's usual one. `timeout_s`: the longest a
    request may take."""
    resources = variant.resources
    options: dict[str, object] = {"num_cpus": resources.num_cpus}
    num_gpus = setup.planned_gpus if resources.num_gpus is None else resources.num_gpus
    if num_gpus or resources.num_gpus is not None:
        options["num_gpus"] = num_gpus
    if resources.memory_bytes is not None:
        options["memory"] = resources.memory_bytes
    router = RequestRouterConfig()
    if setup.sequences is not None:
        # Where a door reaches them by Serve's handle, a sequence stays on its replica as well.
        router = RequestRouterConfig(
            # Serve declares a path as well; its type stub is that of pydantic's first version.
            request_router_class=CONSISTENT_HASHING  # type: ignore[arg-type]
        )
    how_many: dict[str, Any] = {"num_replicas": variant.replicas}
    if variant.autoscaling is not None:
        how_many = {"autoscaling_config": serve_autoscaling(setup.variant, variant.autoscaling)}
    host = deployment_of(ReplicaHost).options(
        name=deployment or deployment_name(setup.variant),
        **how_many,
        # Our doors decide admission and deadlines; Serve's own limits stay looser.
        max_ongoing_requests=4096,
        health_check_period_s=HEALTH_PERIOD_S,
        # On a GPU there is rarely room for a second copy; elsewhere the new one starts first.
        max_surge_percent=0 if num_gpus else 100,
        graceful_shutdown_timeout_s=timeout_s + 5,
        graceful_shutdown_wait_loop_s=0.5,
        ray_actor_options=options,
        request_router_config=router,
    )
    if setup.sharding is not None:
        host = host.options(**sharded_options(setup.sharding, resources.num_cpus))
    language: dict[str, Any] = deployment_options(variant, options)
    return (host.options(**language) if language else host).bind(setup)


def serve_autoscaling(name: str, config: AutoscalingConfig) -> ServeAutoscaling:
    """Serve asks our policy, which has waited already for what is to be waited for."""
    return ServeAutoscaling(
        min_replicas=config.min_replicas,
        initial_replicas=config.first_replicas,
        max_replicas=config.max_replicas,
        upscale_delay_s=0,
        downscale_delay_s=0,
        downscale_to_zero_delay_s=0,
        policy=AutoscalingPolicy(policy_function=POLICY, policy_kwargs={"variant": name}),
    )


def deployment_of(kind: type) -> Deployment:
    """`serve.deployment` of a class, with the type that it has."""
    return cast(Deployment, serve.deployment(kind))
