"""One process, one device, one shard: activations in, computed, out.

Started with the leader's address and the group's secret; all else comes over the control
connection. When that connection ends, so does the process: a group stops as one.
"""

from __future__ import annotations

import actors.own_package  # isort: skip  (before the first import of `cluster`)

import contextlib
import logging
import os
import queue
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import setproctitle

from actors.logs.set_up import set_up_logs
from actors.process_limits import ProcessGuard
from actors.sharding.channels.channel import Channel
from actors.sharding.channels.message import Message
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
    resident_bytes,
)
from actors.sharding.devices import own_device
from actors.sharding.links import Hello, Listener, dial
from actors.sharding.stage_files import receive_files
from cluster.config.model_card import ModelCard
from cluster.config.observability.logs import LogsConfig
from cluster.config.variant import ProcessLimits
from cluster.engines.sharded.make import make_part
from cluster.engines.sharded.part import Part, PartSetup, Step, Values
from cluster.errors import ConfigError, InvalidRequest, ShardLost, SquadronError
from cluster.placement.partition import Shard

assert actors.own_package

QUEUE_DEPTH = 8
"""Micro-batches that a shard reads ahead: its activation memory is bounded by it."""
CONNECT_TIMEOUT_S = 60.0

logger = logging.getLogger("squadron.shard")


def serve_shard(
    address: str,
    rank: int,
    token: str,
    set_title: Callable[[str], None] = setproctitle.setproctitle,
) -> None:
    """Returns, or ends the process, when the group is over."""
    control = Control(dial(address, Hello(token=token, rank=rank, what="control")))
    setup: Setup = control.receive(Setup)
    setup = msgspec.structs.replace(setup, device=own_device(setup.device, os.environ))
    set_title(setup.title)
    listener = Listener(token, setup.host)
    try:
        worker = _Worker(control, setup, listener, token)
        worker.start()
    except SquadronError as error:
        key = str(error.details.get("key", ""))
        control.send(Refused(error=type(error).__name__, message=error.message, key=key))
        return
    finally:
        listener.close()
    worker.run()


class _Worker:
    def __init__(self, control: Control, setup: Setup, listener: Listener, token: str) -> None:
        self._control = control
        self._setup = setup
        self._listener = listener
        self._token = token
        self._part: Part
        self._run: Callable[[Values, Step], Values]
        self._sources: list[Channel] = []
        self._targets: list[Channel] = []
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._room = threading.Semaphore(QUEUE_DEPTH)
        self._busy_s = 0.0
        self._num_steps = 0

    def start(self) -> None:
        setup = self._setup
        set_up_logs(LogsConfig.model_validate_json(setup.logs), role="shard", rank=setup.rank)
        # Before the part makes its threads: they inherit what is set here.
        guard = ProcessGuard(ProcessLimits.model_validate_json(setup.limits))
        guard.hold(threads=setup.threads, folder=Path(setup.cores))
        store, store_port = None, 0
        if setup.needs_group and setup.rank == 0:
            store, store_port = _open_store(setup.host)
        lacks_artefact = bool(setup.artefact) and not Path(setup.artefact).is_file()
        self._control.send(
            Listening(
                address=self._listener.address,
                pid=os.getpid(),
                store_port=store_port,
                lacks_artefact=lacks_artefact,
            )
        )
        if not lacks_artefact:
            self._load(setup, store)
            return
        # Gone once it is loaded, as the cut itself is with its last user.
        with tempfile.TemporaryDirectory(prefix="squadron-stage-") as folder:
            receive_files(self._control, Path(folder))
            here = str(Path(folder, Path(setup.artefact).name))
            self._load(msgspec.structs.replace(setup, artefact=here), store)

    def _load(self, setup: Setup, store: Any) -> None:
        peers: Peers = self._control.receive(Peers)
        groups = _Groups(setup, peers, store) if setup.needs_group else None
        self._part = make_part(_part_setup(setup, groups.stage if groups else None))
        self._run = self._part.run
        if setup.tracing:
            from actors.tracing.shard import traced

            self._run = traced(self._run, setup)
        baseline = resident_bytes(peak=False)
        # Loading may take long: beats begin before it.
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        facts = self._part.load()
        self._connect(peers, groups)
        self._control.send(
            Ready(
                weight_bytes=facts.weight_bytes,
                opened=facts.opened,
                baseline_bytes=baseline,
                peak_bytes=resident_bytes(peak=True),
            )
        )
        threading.Thread(target=self._watch_leader, name="control", daemon=True).start()

    def run(self) -> None:
        for source in self._sources:
            threading.Thread(target=self._read, args=(source,), daemon=True).start()
        while True:
            message = self._inbox.get()
            began_s = time.perf_counter()
            answer = self._compute(message)
            self._busy_s += time.perf_counter() - began_s
            self._num_steps += 1
            for target in self._targets:
                try:
                    target.send(answer)
                except ShardLost as error:
                    _stop(error.message)
            message.done()
            self._room.release()

    def _compute(self, message: Message) -> Message:
        if message.error is not None:
            # An earlier stage failed; the caches that ended have ended here as well.
            self._part.drop(message.step.ends)
            return message
        try:
            values, error = self._run(message.values, message.step), None
        except SquadronError as found:
            if self._setup.tensor_degree > 1 and not isinstance(found, InvalidRequest):
                # The other slices wait in a collective for what this one will never send.
                _stop(found.message)
            values, error = {}, found
        return Message(number=message.number, step=message.step, values=values, error=error)

    def _read(self, source: Channel) -> None:
        try:
            while True:
                self._room.acquire()
                self._inbox.put(source.receive())
        except ShardLost as error:
            _stop(error.message)

    def _connect(self, peers: Peers, groups: _Groups | None) -> None:
        """Who sends dials; who receives listens. All dial before anybody waits."""
        rank = self._setup.rank
        outward = [edge for edge in peers.edges if edge.source == rank]
        inward = [edge for edge in peers.edges if edge.target == rank]
        for edge in outward:
            self._targets.append(self._channel_to(edge, peers, groups))
        for edge in inward:
            self._sources.append(self._channel_from(edge, groups))

    def _channel_to(self, edge: Edge, peers: Peers, groups: _Groups | None) -> Channel:
        if edge.way in ("gloo", "nccl"):
            assert groups is not None
            return groups.channel(edge.target, self._setup.device, edge.way)
        hello = Hello(token=self._token, rank=self._setup.rank, what="data")
        return _made(edge.way, dial(peers.addresses[edge.target], hello))

    def _channel_from(self, edge: Edge, groups: _Groups | None) -> Channel:
        if edge.way in ("gloo", "nccl"):
            assert groups is not None
            return groups.channel(edge.source, self._setup.device, edge.way)
        return _made(edge.way, self._listener.take(edge.source, "data", CONNECT_TIMEOUT_S))

    def _beat(self) -> None:
        try:
            while True:
                self._control.send(self._state())
                time.sleep(self._setup.beat_period_s)
        except ShardLost:
            _stop("the leader is gone")

    def _state(self) -> Beat:
        times = os.times()
        return Beat(
            peak_bytes=resident_bytes(peak=True),
            resident_bytes=resident_bytes(peak=False),
            cpu_s=times.user + times.system,
            busy_s=self._busy_s,
            num_steps=self._num_steps,
        )

    def _watch_leader(self) -> None:
        with contextlib.suppress(SquadronError):
            self._control.receive(Beat)
        _stop("the leader is gone")


class _Groups:
    """The process group of all shards, those of each stage's slices, and one for activations."""

    def __init__(self, setup: Setup, peers: Peers, store: Any) -> None:
        import torch.distributed as dist
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        if setup.host is None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        if setup.device.startswith("cuda"):
            import torch

            torch.cuda.set_device(setup.device)
        if store is None:
            store = TCPStore(peers.store_host, peers.store_port, is_master=False)
        dist.init_process_group(
            peers.backend, store=store, rank=setup.rank, world_size=peers.world_size
        )
        self._between = dist.new_group(backend=peers.between)
        self.stage: Any = None
        for stage in range(setup.num_stages):
            first = stage * setup.tensor_degree
            group = dist.new_group(
                list(range(first, first + setup.tensor_degree)),
                backend=peers.stage_backends[stage],
            )
            if stage == setup.stage and setup.tensor_degree > 1:
                self.stage = group

    def channel(self, peer: int, device: str, way: str) -> Channel:
        import torch

        from actors.sharding.channels.collective_channel import CollectiveChannel

        # gloo sends and receives in host memory only.
        where = torch.device(device if way == "nccl" else "cpu")
        return CollectiveChannel(peer, self._between, where)


def _made(way: str, sock: Any) -> Channel:
    return SharedMemoryChannel(sock) if way == "shared_memory" else SocketChannel(sock)


def _open_store(host: str | None) -> tuple[Any, int]:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    host = host or "127.0.0.1"
    # torch itself listens on every interface, whatever the host, and asks nobody for the secret.
    listening = socket.create_server((host, 0), backlog=128)
    port = listening.getsockname()[1]
    store = TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )
    return store, port


def _part_setup(setup: Setup, group: Any) -> PartSetup:
    return PartSetup(
        card=ModelCard.model_validate_json(setup.card),
        folder=setup.remote.bring() if setup.remote is not None else Path(setup.folder),
        shard=Shard(
            rank=setup.rank,
            stage=setup.stage,
            num_stages=setup.num_stages,
            tensor_rank=setup.tensor_rank,
            tensor_degree=setup.tensor_degree,
            layers=range(*setup.layers),
            device=setup.device,
        ),
        threads=setup.threads,
        dtype=setup.dtype,
        max_memory_bytes=setup.max_memory_bytes,
        kv_cache="static" if setup.kv_cache == "static" else "dynamic",
        kv_cache_tokens=setup.kv_cache_tokens,
        artefact=setup.artefact,
        group=group,
    )


def _stop(why: str) -> None:
    """Out at once: whatever this process still does, the group is over."""
    logger.error("the shard stops: %s", why)
    os._exit(1)


def run_shard(address: str, rank: int, token: str) -> None:
    """A process's whole life; what ends it is its exit message."""
    try:
        serve_shard(address, rank, token)
    except (ShardLost, ConfigError) as error:
        sys.exit(error.message)


def main() -> None:
    """`python -m actors.sharding.shard_worker ADDRESS RANK`, the secret on standard input."""
    address, rank = sys.argv[1:]
    run_shard(address, int(rank), sys.stdin.readline().strip())


if __name__ == "__main__":
    main()
