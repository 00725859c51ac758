"""What a group of shards talks over: every activation's way and every collective, decided once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cluster.config.placement import Transport
from cluster.errors import ConfigError
from cluster.placement.partition import Layout, Shard
from cluster.placement.reservation import gpu_of

Way = Literal["shared_memory", "unix", "tcp", "gloo", "nccl"]
Backend = Literal["gloo", "nccl"]

LEADER = -1
"""The rank of the replica's own process: it has no device and is in no process group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """Activations go from `source` to `target` by `way`."""

    source: int
    target: int
    way: Way
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """`world`: the backend of the process group of all shards, None where none is needed; `stages`:
    of each stage's slices; `between`: of the group that activations go by."""

    hops: tuple[Hop, ...]
    world: Backend | None
    stages: tuple[Backend, ...]
    between: Backend


def choose_talk(
    layout: Layout,
    configured: Transport,
    *,
    is_here: Callable[[int], bool],
    is_same_node: Callable[[int, int], bool],
) -> Talk:
    """The configured way between stages, else the fastest one that works there
    (`loadtests/sharding/hops.py`). NCCL wants a GPU for each process: it refuses two on one.

    Raises: ConfigError for a way that cannot be used, naming shards and devices.
    """
    world = _backend(layout.shards)
    hops = [
        Hop(source=LEADER, target=shard.rank, way=_outer(is_here(shard.rank)), reason="to a stage")
        for shard in layout.stage(0)
    ]
    for shard in layout.shards:
        if not shard.has_head:
            # Each slice of a stage feeds the same slice of the next.
            following = layout.shards[shard.rank + layout.tensor_degree]
            is_near = is_same_node(shard.rank, following.rank)
            hops.append(_hop(layout, shard, following, configured, world, is_near=is_near))
    last = layout.stage(layout.num_stages - 1)[0]
    hops.append(
        Hop(source=last.rank, target=LEADER, way=_outer(is_here(last.rank)), reason="the answer")
    )
    ways = {hop.way for hop in hops}
    needs_group = layout.tensor_degree > 1 or bool(ways & {"gloo", "nccl"})
    return Talk(
        hops=tuple(hops),
        world=world if needs_group else None,
        stages=tuple(_backend(layout.stage(index)) for index in range(layout.num_stages)),
        between="nccl" if "nccl" in ways else "gloo",
    )


def _hop(
    layout: Layout,
    source: Shard,
    target: Shard,
    configured: Transport,
    world: Backend,
    *,
    is_near: bool,
) -> Hop:
    between = f"shard {source.rank} on {_named(source)} to shard {target.rank} on {_named(target)}"
    way: Way
    if configured == "nccl" and world != "nccl":
        raise _refuse(configured, f"{between}: {_why_not_nccl(layout)}", "auto")
    if configured in ("shared_memory", "unix") and not is_near:
        raise _refuse(configured, f"{between}: it ends at the node", "auto, tcp, gloo")
    if configured != "auto":
        way, reason = configured, "as configured"
    elif world == "nccl":
        way, reason = "nccl", "between GPUs"
    elif is_near:
        way, reason = "shared_memory", "one copy, on one node"
    else:
        way, reason = "tcp", "between nodes"
    return Hop(source=source.rank, target=target.rank, way=way, reason=reason)


def _outer(is_here: bool) -> Way:
    return "shared_memory" if is_here else "tcp"


def _backend(shards: tuple[Shard, ...]) -> Backend:
    gpus = [gpu_of(shard) for shard in shards]
    return "nccl" if None not in gpus and len(set(gpus)) == len(gpus) else "gloo"


def _why_not_nccl(layout: Layout) -> str:
    for shard in layout.shards:
        if gpu_of(shard) is None:
            return f"NCCL moves tensors between GPUs, and shard {shard.rank} is on {_named(shard)}"
    seen: dict[object, Shard] = {}
    for shard in layout.shards:
        other = seen.setdefault(gpu_of(shard), shard)
        if other is not shard:
            return (
                f"NCCL wants a GPU for each, and shards {other.rank} and {shard.rank} share "
                f"{_named(shard)}"
            )
    raise AssertionError("every shard has a GPU of its own")


def _named(shard: Shard) -> str:
    return f"{shard.node}/{shard.device}" if shard.node else shard.device


def _refuse(way: str, why: str, allowed: str) -> ConfigError:
    return ConfigError(
        f"placement.transport {way} cannot be used from {why}; allowed: {allowed}",
        key="placement.transport",
        value=way,
        allowed=allowed,
    )
