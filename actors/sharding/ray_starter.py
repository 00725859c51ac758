"""A group's shards as Ray actors in the replica's own placement group, as it was reserved."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import ray
from ray.util import get_current_placement_group, placement_group_table
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.sharding.replica import Sharding
from actors.sharding.shard_worker import serve_shard
from cluster.config.placement import PlacementConfig
from cluster.errors import EngineFailed
from cluster.placement.partition import Layout
from cluster.placement.reservation import Reservation, reserve

NAMESPACE = "squadron"


class ShardActor:
    """Ray places, owns and ends the process; all else is between it and the group's leader."""

    def serve(self, address: str, rank: int, token: str) -> None:
        """Runs as long as the group does."""
        # Ray brings a copy of setproctitle; a second one cannot find the title's memory.
        serve_shard(address, rank, token, ray._raylet.setproctitle)  # type: ignore[attr-defined]


class RayStarter:
    """Called in a replica whose deployment has a placement group. `title`: of the group; each
    shard's actor and process are named after it and its rank."""

    def __init__(
        self, layout: Layout, placement: PlacementConfig, *, threads: int, title: str
    ) -> None:
        found = get_current_placement_group()
        if found is None:
            raise EngineFailed("a sharded replica needs a placement group")
        self._group: PlacementGroup = found
        self._layout = layout
        self._placement = placement
        self._threads = threads
        self._title = title
        self._reserved = reserve(layout, placement)
        nodes = placement_group_table(found)["bundles_to_node_id"]
        self._nodes: dict[int, str] = {int(bundle): node for bundle, node in nodes.items()}
        self._actors: list[Any] = []
        self._failure = ""
        is_one_node = len(set(self._nodes.values())) == 1
        self.host: str | None = None if is_one_node else ray.util.get_node_ip_address()

    def is_here(self, rank: int) -> bool:
        return self._node_of(rank) == self._nodes[0]

    def is_same_node(self, one: int, other: int) -> bool:
        return self._node_of(one) == self._node_of(other)

    def _node_of(self, rank: int) -> str:
        return self._nodes[self._reserved.bundle_of(rank)]

    def start(self, address: str, token: str) -> None:
        for shard in self._layout.shards:
            options: dict[str, Any] = {
                "name": f"{self._title}:shard{shard.rank}",
                "namespace": NAMESPACE,
                "num_cpus": self._placement.num_cpus,
                "max_restarts": 0,
                "scheduling_strategy": PlacementGroupSchedulingStrategy(
                    placement_group=self._group,
                    placement_group_bundle_index=self._reserved.bundle_of(shard.rank),
                ),
                "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(self._threads)}},
            }
            if self._reserved.gpu_shares[shard.rank]:
                # Ray says which GPU of the machine it is.
                options["num_gpus"] = self._reserved.gpu_shares[shard.rank]
            actor: Any = ray.remote(ShardActor).options(**options).remote()
            self._actors.append(actor)
            future = actor.serve.remote(address, shard.rank, token)
            threading.Thread(
                target=self._watch, args=(shard.rank, future), name="shard-watch", daemon=True
            ).start()

    def failure(self) -> str:
        return self._failure

    def stop(self) -> None:
        for actor in self._actors:
            with contextlib.suppress(Exception):
                ray.kill(actor)

    def _watch(self, rank: int, future: Any) -> None:
        try:
            ray.get(future)
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            self._failure = self._failure or f"shard {rank}: {type(error).__name__}: {first}"


def bundles(reserved: Reservation, num_cpus: float) -> list[dict[str, float]]:
    """As Ray takes them. `num_cpus`: of the replica's own process."""
    found: list[dict[str, float]] = []
    for bundle in reserved.bundles:
        told = {"CPU": bundle.num_cpus + (num_cpus if bundle.has_replica else 0.0)}
        if bundle.num_gpus:
            told["GPU"] = bundle.num_gpus
        found.append(told)
    return found


def label_selectors(reserved: Reservation) -> list[dict[str, str]] | None:
    """Labels that each bundle's node must carry; None when no shard asks for any."""
    found = [dict(bundle.labels) for bundle in reserved.bundles]
    return found if any(found) else None


def sharded_options(sharding: Sharding, num_cpus: float) -> dict[str, Any]:
    """A placement group of its own for each replica."""
    reserved = reserve(sharding.layout, sharding.placement)
    has_gpus = any(bundle.num_gpus for bundle in reserved.bundles)
    options: dict[str, Any] = {
        "ray_actor_options": {"num_cpus": num_cpus},
        "placement_group_bundles": bundles(reserved, num_cpus),
        "placement_group_strategy": reserved.strategy,
        "max_surge_percent": 0 if has_gpus else 100,
    }
    labels = label_selectors(reserved)
    if labels is not None:
        options["placement_group_bundle_label_selector"] = labels
    return options
