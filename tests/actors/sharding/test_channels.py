from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from actors.sharding.channels.channel import Channel
from actors.sharding.channels.message import Message
from actors.sharding.channels.shared_memory_channel import NUM_SLOTS, SharedMemoryChannel
from actors.sharding.channels.socket_channel import SocketChannel
from cluster.engines.sharded.part import Step
from cluster.errors import InvalidRequest, ShardLost

Pair = tuple[Channel, Channel]


def unix_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    return one, other


WAYS: dict[str, Callable[[], Pair]] = {
    "unix": lambda: tuple(SocketChannel(s) for s in unix_pair()),  # type: ignore[return-value]
    "tcp": lambda: tuple(SocketChannel(s) for s in tcp_pair()),  # type: ignore[return-value]
    "shared_memory": lambda: tuple(  # type: ignore[return-value]
        SharedMemoryChannel(s) for s in unix_pair()
    ),
}


@pytest.fixture(params=WAYS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    one, other = WAYS[request.param]()
    yield one, other
    one.close()
    other.close()


def message(number: int = 0, **values: Any) -> Message:
    return Message(number=number, step=Step(), values=values)


def test_tensors_of_every_kind_arrive_as_they_were(pair: Pair) -> None:
    sender, receiver = pair
    values = {
        "floats": np.arange(12, dtype=np.float32).reshape(3, 4),
        "ids": np.arange(5, dtype=np.int64),
        "turned": np.arange(12, dtype=np.float32).reshape(3, 4).T,
        "scalar": np.array(7, np.int64),
        "empty": np.empty((0, 3), np.float32),
        "bf16": np.arange(4).astype(ml_dtypes.bfloat16),
    }
    sender.send(message(3, **values))

    found = receiver.receive()

    assert found.number == 3
    for name, value in values.items():
        assert found.values[name].dtype == value.dtype, name
        assert np.array_equal(found.values[name], value), name


def test_a_tensor_of_torch_arrives_as_its_numbers(pair: Pair) -> None:
    sender, receiver = pair
    sender.send(message(hidden=torch.arange(6).reshape(2, 3).to(torch.bfloat16)))

    found = receiver.receive().values["hidden"]

    assert found.astype(np.float32).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_a_step_is_for_and_an_error_arrive(pair: Pair) -> None:
    sender, receiver = pair
    step = Step(sequence="s7", is_last_only=True, ends=("s1", "s2"))
    sender.send(Message(number=1, step=step, values={}, error=InvalidRequest("no such token")))

    found = receiver.receive()

    assert found.step == step
    assert isinstance(found.error, InvalidRequest)
    assert found.error.message == "no such token"


def test_messages_of_growing_size_come_in_order_while_the_sender_is_ahead(pair: Pair) -> None:
    sender, receiver = pair
    sizes = [1, 3_000_000, 10, 5_000_000, *range(100, 100 + 3 * NUM_SLOTS)]

    def send_all() -> None:
        for number, size in enumerate(sizes):
            sender.send(message(number, x=np.full(size, number, np.uint8)))

    thread = threading.Thread(target=send_all)
    thread.start()
    for number, size in enumerate(sizes):
        found = receiver.receive()
        assert found.number == number
        assert found.values["x"].shape == (size,)
        assert (found.values["x"] == number).all()
        found.done()
    thread.join()


def test_a_received_tensor_stays_until_it_is_given_back(pair: Pair) -> None:
    sender, receiver = pair
    sender.send(message(0, x=np.zeros(8)))
    first = receiver.receive()
    for number in range(1, NUM_SLOTS):
        sender.send(message(number, x=np.full(8, number)))
        receiver.receive().done()

    assert (first.values["x"] == 0).all()


def test_a_receiver_whose_sender_is_gone_is_told(pair: Pair) -> None:
    sender, receiver = pair
    sender.close()
    with pytest.raises(ShardLost, match="gone"):
        receiver.receive()


def test_closing_ends_a_receive_that_waits(pair: Pair) -> None:
    _, receiver = pair
    told: list[str] = []

    def wait() -> None:
        try:
            receiver.receive()
        except ShardLost as error:
            told.append(error.message)

    thread = threading.Thread(target=wait)
    thread.start()
    receiver.close()
    thread.join(10)

    assert not thread.is_alive()
    assert len(told) == 1


@pytest.mark.parametrize("data", [b"\xff" * 64, b"M" + b"\x04\0\0\0" + b"\0" * 8 + b"junk"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    one, other = unix_pair()
    receiver = SocketChannel(other)
    one.sendall(data)
    one.close()
    with pytest.raises(ShardLost):
        receiver.receive()
    receiver.close()
