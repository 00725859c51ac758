from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.sharding.channels.message import Message
from actors.sharding.control import Control
from actors.sharding.group_start import GroupSetup, _told
from actors.sharding.links import Listener
from actors.sharding.shard_worker import _open_store, _Worker
from cluster.config.placement import PlacementConfig
from cluster.engines.sharded.layers import layered_model
from cluster.engines.sharded.part import Step
from cluster.engines.sharded.torch_part import TorchPart
from cluster.errors import InvalidRequest
from cluster.placement.partition import lay_out
from tests.cluster.engines.sharded.directories import inputs_of, llama, saved
from tests.cluster.engines.sharded.test_torch_part import part

IDS = inputs_of("llama")["input_ids"][:1].numpy()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[TorchPart]:
    """With the open caches `a` and `b`."""
    card = saved(llama(), tmp_path)
    made = part(tmp_path, card, range(4), of=4)
    made.load()
    for sequence in ("a", "b"):
        made.run({"input_ids": IDS}, Step(sequence=sequence))
    assert open_caches(made) == ["a", "b"]
    yield made
    made.close()


@pytest.fixture
def worker(stage: TorchPart, tmp_path: Path) -> Iterator[_Worker]:
    """A shard's worker that has loaded, without the group that it answers."""
    card = stage._setup.card
    placement = PlacementConfig(strategy="layer", shards=1)
    layout = lay_out(placement, layered_model(card, tmp_path))
    group = GroupSetup(title="t", card=card, folder=tmp_path, placement=placement, layout=layout)
    told = _told(group, layout.shards[0], needs_group=False, host=None)
    one, other = socket.socketpair()
    listener = Listener("secret")
    made = _Worker(Control(one), told, listener, "secret")
    made._part, made._run = stage, stage.run
    yield made
    listener.close()
    one.close()
    other.close()


def open_caches(stage: TorchPart) -> list[str]:
    assert stage._caches is not None
    return list(stage._caches._open)


def test_a_later_stage_forgets_what_ended_though_an_earlier_one_failed(
    stage: TorchPart, worker: _Worker
) -> None:
    step = Step(sequence="c", ends=("a",))
    failed = Message(number=0, step=step, values={}, error=InvalidRequest("refused before"))

    assert worker._compute(failed) is failed

    assert open_caches(stage) == ["b"]


@pytest.mark.parametrize("wrong", [{"input_ids": IDS + 10_000}, {"input_ids": "no tensor"}])
def test_a_stage_forgets_what_ended_though_it_fails_itself(
    wrong: dict[str, object], stage: TorchPart, worker: _Worker
) -> None:
    answer = worker._compute(Message(number=0, step=Step(ends=("a",)), values=wrong))

    assert answer.error is not None
    assert open_caches(stage) == ["b"]


@pytest.mark.parametrize("host", [None, "127.0.0.1"])
def test_a_groups_store_listens_on_its_own_address_only(host: str | None) -> None:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store, port = _open_store(host)

    assert listening(port) == ["0100007F"]  # 127.0.0.1 as proc(5) writes it
    TCPStore("127.0.0.1", port, is_master=False).set("one", "1")
    assert store.get("one") == b"1"


def listening(port: int) -> list[str]:
    """The addresses on which this machine listens at a port, in hexadecimal. Source: proc(5)."""
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            address, _, at = fields[1].partition(":")
            if fields[3] == "0A" and int(at, 16) == port:
                found.append(address)
    return found
