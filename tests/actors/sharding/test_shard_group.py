"""What a group says to its first stage; the test is at the other end of its channels."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from actors.sharding.channels.message import Message
from actors.sharding.channels.socket_channel import SocketChannel
from actors.sharding.group_start import GroupSetup, Started
from actors.sharding.shard_group import ShardGroup
from actors.sharding.starters import ProcessStarter
from cluster.config.model_card import ModelCard
from cluster.config.placement import PlacementConfig
from cluster.engines.sharded.layers import layered_model, stage_artefacts
from cluster.engines.sharded.part import Step
from cluster.engines.sharded.stages import let_go
from cluster.errors import ConfigError, EngineFailed, InvalidRequest
from cluster.placement.partition import LayeredModel, lay_out
from tests.cluster.engines.sharded.test_stages import CARD, model_without_room, ours

VOCABULARY = 96
PROMPT = {"input_ids": np.array([[1, 2, 3]])}


@pytest.fixture
def ends() -> Iterator[tuple[SocketChannel, SocketChannel]]:
    """The leader's end and the shards'."""
    one, other = socket.socketpair()
    made = SocketChannel(one, timeout_s=30), SocketChannel(other, timeout_s=30)
    yield made
    for channel in made:
        channel.close()


@pytest.fixture
def group(ends: tuple[SocketChannel, SocketChannel]) -> ShardGroup:
    placement = PlacementConfig(strategy="layer", shards=1)
    card = ModelCard.model_validate(
        {
            "name": "tokens",
            "format": "huggingface",
            "artefact": ".",
            "signature": {
                "inputs": [{"name": "input_ids", "datatype": "INT64", "shape": [-1, -1]}],
                "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, -1, VOCABULARY]}],
            },
        }
    )
    layout = lay_out(placement, LayeredModel(num_layers=1, layer_bytes=(1,), layer_cost=(1.0,)))
    made = ShardGroup(
        GroupSetup(
            title="t",
            card=card,
            folder=Path(),
            placement=placement,
            layout=layout,
            vocabulary_size=VOCABULARY,
        ),
        ProcessStarter(1),
    )
    made._started = Started(
        controls=(), ready=(), pids=(), targets=(ends[0],), source=ends[0], edges=()
    )
    return made


def answered(shards: SocketChannel) -> Step:
    """Answer one message with logits; what it was for."""
    message = shards.receive()
    logits = {"logits": np.zeros((1, 1, VOCABULARY), np.float32)}
    shards.send(Message(number=message.number, step=message.step, values=logits))
    return message.step


def test_a_refused_prompt_takes_no_ended_cache_with_it(
    group: ShardGroup, ends: tuple[SocketChannel, SocketChannel]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        step = pool.submit(answered, ends[1])
        (_,) = group.stream(PROMPT, {"max_tokens": 1})
        ended = step.result().sequence
        with pytest.raises(InvalidRequest, match="input_ids holds 10000"):
            list(group.stream({"input_ids": np.array([[10_000]])}, {"max_tokens": 1}))
        step = pool.submit(answered, ends[1])
        (_,) = group.stream(PROMPT, {"max_tokens": 1})

        assert ended in step.result().ends


@pytest.fixture
def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GroupSetup:
    """Of a model beside which nothing can be written."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    folder = model_without_room(tmp_path).parent
    placement = PlacementConfig(strategy="layer", shards=2)
    layout = lay_out(placement, layered_model(CARD, folder))
    return GroupSetup(
        title="t",
        card=CARD,
        folder=folder,
        placement=placement,
        layout=layout,
        artefacts=stage_artefacts(CARD, folder, layout),
    )


def test_the_stages_files_end_with_their_replica(cut: GroupSetup, tmp_path: Path) -> None:
    group = ShardGroup(cut, ProcessStarter(2))
    group.load()
    assert len(ours(tmp_path / "scratch")) == 1

    group.close()
    group.close()

    assert not ours(tmp_path / "scratch")


def test_the_stages_files_end_with_a_replica_that_did_not_start(
    cut: GroupSetup, tmp_path: Path
) -> None:
    Path(cut.artefacts[1]).write_bytes(b"no graph")

    # Which end tells first is a race: the shard's own error, or its neighbour's that it is gone.
    with pytest.raises((ConfigError, EngineFailed)):
        ShardGroup(cut, ProcessStarter(2)).load()

    assert not ours(tmp_path / "scratch")


def test_a_stage_whose_file_its_shard_cannot_see_is_sent_to_it(cut: GroupSetup) -> None:
    """A path that only this process can follow, as one on a disk of another node is."""
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    folder = os.open(Path(cut.artefacts[0]).parent, os.O_RDONLY | os.O_DIRECTORY)
    elsewhere = tuple(f"/proc/self/fd/{folder}/{Path(path).name}" for path in cut.artefacts)
    group = ShardGroup(replace(cut, artefacts=elsewhere), ProcessStarter(2))
    try:
        group.load()
        assert_array_equal(group.infer({"x": x})["y"], x)
    finally:
        group.close()
        os.close(folder)
        let_go(cut.artefacts)
