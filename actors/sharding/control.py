"""What a group's leader and its shards tell each other beside the activations."""

from __future__ import annotations

import socket
import threading
from typing import Any, TypeVar

import msgspec

from actors.sharding.channels.socket_channel import receive_exactly, send_pieces
from cluster.errors import ERRORS_BY_NAME, EngineFailed, SquadronError
from cluster.optimization.remote.mirror import RemoteVersion


class Edge(msgspec.Struct, frozen=True):
    """Activations go from `source` to `target` by `way`."""

    source: int
    target: int
    way: str


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """Leader to shard, first: what it is. `card`, `limits`, `tracing` (empty without) and `logs`
    are those sections as JSON; `cores` is the folder where the processes of a node share out its
    cores; `remote` is where `folder` comes from on a node that does not have it."""

    title: str
    card: str
    folder: str
    remote: RemoteVersion | None = None
    limits: str
    cores: str
    rank: int
    stage: int
    num_stages: int
    tensor_rank: int
    tensor_degree: int
    layers: tuple[int, int]
    device: str
    threads: int
    dtype: str
    max_memory_bytes: int | None
    kv_cache: str
    kv_cache_tokens: int
    artefact: str
    beat_period_s: float
    needs_group: bool
    host: str | None
    tracing: str = ""
    logs: str = "{}"


class Listening(msgspec.Struct, frozen=True, kw_only=True):
    """Shard to leader: where it takes activations, and (rank 0) where the group's store is."""

    address: str
    pid: int
    store_port: int = 0


class Peers(msgspec.Struct, frozen=True, kw_only=True):
    """Leader to shard: everybody's address by rank (the leader's last), the edges, and what the
    process groups of all, of each stage and of activations work with."""

    addresses: tuple[str, ...]
    edges: tuple[Edge, ...]
    world_size: int
    store_host: str
    store_port: int
    backend: str
    stage_backends: tuple[str, ...]
    between: str


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Shard to leader: loaded and connected. Resident bytes before and after loading."""

    weight_bytes: int
    opened: tuple[str, ...]
    baseline_bytes: int
    peak_bytes: int


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Shard to leader: why it could not start."""

    error: str
    message: str
    key: str = ""

    def raised(self) -> SquadronError:
        kind = ERRORS_BY_NAME.get(self.error, EngineFailed)
        return kind(self.message, key=self.key) if self.key else kind(self.message)


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """Shard to leader, again and again: alive, with its greatest resident size so far; and what it
    has done and taken since it began."""

    peak_bytes: int
    resident_bytes: int = 0
    cpu_s: float = 0.0
    busy_s: float = 0.0
    num_steps: int = 0


T = TypeVar("T")


class Control:
    """Frames of msgpack on a socket: u32 length, value. Sending is safe from several threads."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._lock = threading.Lock()

    def send(self, value: msgspec.Struct) -> None:
        """Raises: ShardLost when the other end is gone."""
        data = msgspec.msgpack.encode([type(value).__name__, value])
        with self._lock:
            send_pieces(self.socket, [len(data).to_bytes(4, "little"), data])

    def receive(self, *kinds: type[Any]) -> Any:
        """A value of one of the kinds. Raises: ShardLost."""
        length = int.from_bytes(receive_exactly(self.socket, 4), "little")
        data = receive_exactly(self.socket, length)
        name, value = msgspec.msgpack.decode(data)
        for kind in kinds:
            if kind.__name__ == name:
                return msgspec.convert(value, kind)
        raise EngineFailed(f"a shard said {name}, expected {', '.join(k.__name__ for k in kinds)}")


def resident_bytes(*, peak: bool) -> int:
    """This process's resident size, or the greatest it ever had. Source: proc(5), VmHWM, VmRSS."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(wanted):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
