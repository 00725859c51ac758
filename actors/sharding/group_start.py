"""A group's beginning: every shard is told what it is, loads, and is joined to its neighbours."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from actors.sharding.channels.channel import Channel
from actors.sharding.channels.shared_memory_channel import SharedMemoryChannel
from actors.sharding.channels.socket_channel import SocketChannel
from actors.sharding.control import (
    Beat,
    Control,
    Edge,
    Listening,
    Peers,
    Ready,
    Refused,
    Setup,
)
from actors.sharding.links import Hello, Listener, dial
from actors.sharding.starters import WorkerStarter
from cluster.config.model_card import ModelCard
from cluster.config.observability.logs import LogsConfig
from cluster.config.observability.tracing import TracingConfig
from cluster.config.placement import PlacementConfig
from cluster.config.variant import ProcessLimits
from cluster.errors import EngineFailed, ShardLost
from cluster.optimization.remote.mirror import RemoteVersion
from cluster.placement.partition import MIB, Layout, Shard
from cluster.placement.transport import LEADER, choose_talk


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSetup:
    """What a group computes, and how. `title`: of its processes, before `:shard<rank>`.
    `artefacts`: the file of each stage, for a model that is cut into files. `limits` hold for
    every shard's process; `cores`: where those of a node share out its cores."""

    title: str
    card: ModelCard
    folder: Path
    remote: RemoteVersion | None = None
    placement: PlacementConfig
    layout: Layout
    threads: int = 1
    dtype: str = "float32"
    artefacts: tuple[str, ...] = ()
    vocabulary_size: int = 0
    max_tokens: int = 0
    limits: ProcessLimits = field(default_factory=ProcessLimits)
    cores: Path = Path(tempfile.gettempdir(), "squadron-cores")
    tracing: TracingConfig | None = None
    logs: LogsConfig = field(default_factory=LogsConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A group that can compute. `targets`: the first stage's slices; `source`: the last stage."""

    controls: tuple[Control, ...]
    ready: tuple[Ready, ...]
    pids: tuple[int, ...]
    targets: tuple[Channel, ...]
    source: Channel
    edges: tuple[Edge, ...]


def start_group(setup: GroupSetup, starter: WorkerStarter) -> Started:
    """Raises: ConfigError as a shard found it; ShardLost or EngineFailed when one did not start.
    What was started is stopped again."""
    token = secrets.token_hex(32)
    listener = Listener(token, starter.host)
    with contextlib.ExitStack() as undone:
        undone.callback(starter.stop)
        try:
            starter.start(listener.address, token)
            started = _join(setup, starter, listener, token, undone)
        except ShardLost as error:
            failure = _failure_of(starter) or error.message
            raise EngineFailed(f"a shard did not start: {failure}") from None
        finally:
            listener.close()
        undone.pop_all()
        return started


def _failure_of(starter: WorkerStarter) -> str:
    """A neighbour's closed socket is known a moment before what became of the shard itself, which
    says more. Empty when nothing is known after a second."""
    until_s = time.monotonic() + 1.0
    while not (failure := starter.failure()) and time.monotonic() < until_s:
        time.sleep(0.02)
    return failure


def _join(
    setup: GroupSetup,
    starter: WorkerStarter,
    listener: Listener,
    token: str,
    undone: contextlib.ExitStack,
) -> Started:
    """`undone` closes the connections when there will be no group."""
    placement, shards = setup.placement, setup.layout.shards
    until_s = time.monotonic() + placement.start_timeout_s
    talk = choose_talk(
        setup.layout,
        placement.transport,
        is_here=starter.is_here,
        is_same_node=starter.is_same_node,
    )
    edges = tuple(Edge(source=hop.source, target=hop.target, way=hop.way) for hop in talk.hops)
    needs_group = talk.world is not None
    controls = []
    for shard in shards:
        sock = listener.take(shard.rank, "control", max(1.0, until_s - time.monotonic()))
        undone.callback(sock.close)
        sock.settimeout(placement.start_timeout_s)
        controls.append(Control(sock))
    for shard, control in zip(shards, controls, strict=True):
        control.send(_told(setup, shard, needs_group=needs_group, host=starter.host))
    listening: list[Listening] = [control.receive(Listening) for control in controls]
    store_host = "127.0.0.1" if starter.host is None else _host_of(listening[0].address)
    peers = Peers(
        addresses=(*[found.address for found in listening], listener.address),
        edges=edges,
        world_size=len(shards),
        store_host=store_host,
        store_port=listening[0].store_port,
        backend=talk.world or "",
        stage_backends=talk.stages,
        between=talk.between,
    )
    for control in controls:
        control.send(peers)
    targets = []
    for edge in edges:
        if edge.source == LEADER:
            hello = Hello(token=token, rank=LEADER, what="data")
            sock = dial(peers.addresses[edge.target], hello)
            undone.callback(sock.close)
            targets.append(_channel(edge.way, sock, timeout_s=placement.step_timeout_s))
    ready = tuple(_ready(control) for control in controls)
    (outward,) = [edge for edge in edges if edge.target == LEADER]
    source = _channel(
        outward.way,
        listener.take(outward.source, "data", max(1.0, until_s - time.monotonic())),
        timeout_s=placement.step_timeout_s,
    )
    return Started(
        controls=tuple(controls),
        ready=ready,
        pids=tuple(found.pid for found in listening),
        targets=tuple(targets),
        source=source,
        edges=edges,
    )


def _ready(control: Control) -> Ready:
    while True:
        match control.receive(Ready, Refused, Beat):
            case Ready() as ready:
                return ready
            case Refused() as refused:
                raise refused.raised()


def _told(setup: GroupSetup, shard: Shard, *, needs_group: bool, host: str | None) -> Setup:
    placement = setup.placement
    cap = placement.max_memory_mb
    return Setup(
        title=f"{setup.title}:shard{shard.rank}",
        card=setup.card.model_dump_json(),
        folder=str(setup.folder),
        remote=setup.remote,
        limits=setup.limits.model_dump_json(),
        cores=str(setup.cores),
        rank=shard.rank,
        stage=shard.stage,
        num_stages=shard.num_stages,
        tensor_rank=shard.tensor_rank,
        tensor_degree=shard.tensor_degree,
        layers=(shard.layers.start, shard.layers.stop),
        device=shard.device,
        threads=setup.threads,
        dtype=setup.dtype,
        max_memory_bytes=None if cap is None else int(cap * MIB),
        kv_cache=placement.kv_cache,
        kv_cache_tokens=placement.kv_cache_tokens,
        artefact=setup.artefacts[shard.stage] if setup.artefacts else "",
        beat_period_s=min(0.5, placement.heartbeat_timeout_s / 5),
        needs_group=needs_group,
        host=host,
        tracing="" if setup.tracing is None else setup.tracing.model_dump_json(),
        logs=setup.logs.model_dump_json(),
    )


def _channel(way: str, sock: object, *, timeout_s: float) -> Channel:
    made = SharedMemoryChannel if way == "shared_memory" else SocketChannel
    return made(sock, timeout_s=timeout_s)  # type: ignore[arg-type]


def _host_of(address: str) -> str:
    return address.partition(":")[2].rpartition(":")[0]
