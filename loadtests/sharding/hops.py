"""`python -m loadtests.sharding.hops`: what an activation's way to another process costs.

Two processes send a tensor to and fro; half a round is a hop. The line goes through
the medians of 4 KiB and 1 MiB; more than that leaves the caches.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from actors.sharding.channels.channel import Channel
from actors.sharding.channels.message import Message
from actors.sharding.channels.shared_memory_channel import SharedMemoryChannel
from actors.sharding.channels.socket_channel import SocketChannel
from cluster.engines.sharded.part import Step

SIZES = (4 * 2**10, 64 * 2**10, 2**20, 8 * 2**20)
WAYS = ("shared_memory", "unix", "tcp", "gloo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    found: dict[str, dict[int, float]] = {way: {} for way in WAYS}
    context = multiprocessing.get_context("spawn")
    for way in WAYS:
        ours, theirs = context.Pipe()
        other = context.Process(target=_echo, args=(way, theirs))
        other.start()
        there, back = _ends(way, ours, 0)
        for size in SIZES:
            found[way][size] = _hop_us(there, back, size, rounds)
        there.send(Message(number=-1, step=Step(), values={}))
        other.join(20)
        small, large = SIZES[0], SIZES[2]
        slope = (found[way][large] - found[way][small]) / (large - small) * 1e6
        row = {f"{size // 1024} KiB": round(us) for size, us in found[way].items()}
        print(
            json.dumps(
                {"way": way, **row, "us": round(found[way][small]), "us_per_mb": round(slope)}
            )
        )


def _hop_us(there: Channel, back: Channel, size: int, rounds: int) -> float:
    values = {"hidden_states": np.zeros(size // 4, np.float32)}
    seen = []
    for number in range(rounds + 5):
        began_s = time.perf_counter()
        there.send(Message(number=number, step=Step(), values=values))
        back.receive().done()
        seen.append((time.perf_counter() - began_s) / 2 * 1e6)
    return statistics.median(seen[5:])


def _echo(way: str, pipe: Connection) -> None:
    back, there = _ends(way, pipe, 1)
    while True:
        message = there.receive()
        if message.number < 0:
            # At once: a process group has nothing left to say to the other end.
            os._exit(0)
        back.send(Message(number=message.number, step=Step(), values=message.values))
        message.done()


def _ends(way: str, pipe: Connection, rank: int) -> tuple[Channel, Channel]:
    """What this end sends with, and what it receives with."""
    if way == "gloo":
        return _gloo(pipe, rank)
    made: list[Any] = []
    for sender in (0, 1):
        sock = _connected(way, pipe, is_server=sender != rank)
        made.append(SharedMemoryChannel(sock) if way == "shared_memory" else SocketChannel(sock))
    return (made[0], made[1]) if rank == 0 else (made[1], made[0])


def _connected(way: str, pipe: Connection, *, is_server: bool) -> socket.socket:
    family = socket.AF_INET if way == "tcp" else socket.AF_UNIX
    if not is_server:
        address = pipe.recv()
        sock = socket.socket(family)
        sock.connect(tuple(address) if way == "tcp" else address)
        return sock
    with socket.socket(family) as server:
        server.bind(("127.0.0.1", 0) if way == "tcp" else f"\0squadron-hops-{time.time_ns()}")
        server.listen(1)
        pipe.send(server.getsockname())
        sock, _ = server.accept()
        return sock


def _gloo(pipe: Connection, rank: int) -> tuple[Channel, Channel]:
    import torch
    import torch.distributed as dist

    from actors.sharding.channels.collective_channel import CollectiveChannel

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        pipe.send(store.port)
    else:
        store = dist.TCPStore("127.0.0.1", pipe.recv(), is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    channel = CollectiveChannel(1 - rank, dist.group.WORLD, torch.device("cpu"))
    return channel, channel


if __name__ == "__main__":
    main()
