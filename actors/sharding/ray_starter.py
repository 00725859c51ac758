"""A group's shards as Ray actors in the replica's own placement group: bundle 1 + rank each."""

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


class ShardActor:
    """Ray places, owns and ends the process; all else is between it and the group's leader."""

    def serve(self, address: str, rank: int, token: str) -> None:
        """Runs as long as the group does."""
        # Ray brings a copy of setproctitle; a second one cannot find the title's memory.
        serve_shard(address, rank, token, ray._raylet.setproctitle)  # type: ignore[attr-defined]


class RayStarter:
    """Called in a replica whose deployment has a placement group."""

    def __init__(self, layout: Layout, placement: PlacementConfig, *, threads: int) -> None:
        found = get_current_placement_group()
        if found is None:
            raise EngineFailed("a sharded replica needs a placement group")
        self._group: PlacementGroup = found
        self._layout = layout
        self._placement = placement
        self._threads = threads
        nodes = placement_group_table(found)["bundles_to_node_id"]
        self._nodes: dict[int, str] = {int(bundle): node for bundle, node in nodes.items()}
        self._actors: list[Any] = []
        self._failure = ""
        is_one_node = len(set(self._nodes.values())) == 1
        self.host: str | None = None if is_one_node else ray.util.get_node_ip_address()

    def is_here(self, rank: int) -> bool:
        return self._nodes[rank + 1] == self._nodes[0]

    def is_same_node(self, one: int, other: int) -> bool:
        return self._nodes[one + 1] == self._nodes[other + 1]

    def start(self, address: str, token: str) -> None:
        for shard in self._layout.shards:
            options: dict[str, Any] = {
                "num_cpus": self._placement.num_cpus,
                "max_restarts": 0,
                "scheduling_strategy": PlacementGroupSchedulingStrategy(
                    placement_group=self._group, placement_group_bundle_index=shard.rank + 1
                ),
                "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(self._threads)}},
            }
            if shard.device.startswith("cuda"):
                options["num_gpus"] = gpu_share(self._layout, shard.device)
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


def bundles(layout: Layout, placement: PlacementConfig, replica: dict[str, float]) -> list[Any]:
    """What Ray reserves: first the replica's own process, then every shard's."""
    found: list[Any] = [replica]
    for shard in layout.shards:
        bundle = {"CPU": placement.num_cpus}
        if shard.device.startswith("cuda"):
            bundle["GPU"] = gpu_share(layout, shard.device)
        found.append(bundle)
    return found


def gpu_share(layout: Layout, device: str) -> float:
    """Shards that name the same GPU share it. Ray says which one it is in the machine."""
    return 1.0 / sum(shard.device == device for shard in layout.shards)


def bundle_strategy(layout: Layout, placement: PlacementConfig) -> str:
    """Slices of a layer talk twice a layer and stay on one node; stages may be apart."""
    if placement.bundles != "auto":
        return placement.bundles
    return "STRICT_PACK" if layout.num_stages == 1 else "PACK"


def label_selectors(layout: Layout) -> list[dict[str, str]] | None:
    """Labels that each bundle's node must carry; None when no shard asks for any."""
    if not any(shard.labels for shard in layout.shards):
        return None
    return [{}, *[dict(shard.labels) for shard in layout.shards]]


def sharded_options(sharding: Sharding, num_cpus: float) -> dict[str, Any]:
    """The replica in the first bundle of a placement group of its own, its shards in the others."""
    layout, placement = sharding.layout, sharding.placement
    options: dict[str, Any] = {
        "ray_actor_options": {"num_cpus": num_cpus},
        "placement_group_bundles": bundles(layout, placement, {"CPU": num_cpus}),
        "placement_group_strategy": bundle_strategy(layout, placement),
        "max_surge_percent": 0 if any(s.device != "cpu" for s in layout.shards) else 100,
    }
    labels = label_selectors(layout)
    if labels is not None:
        options["placement_group_bundle_label_selector"] = labels
    return options
