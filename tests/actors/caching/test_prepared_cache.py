"""What preprocessing makes is kept: counted by how often it was really made."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from actors.caching.prepared_cache import PreparedCache
from actors.model_replica import ModelReplica, ReplicaSetup
from cluster.config.cache import PreprocessCacheConfig
from cluster.config.model_card import ModelCard
from cluster.config.variant import BatchingConfig, ProcessLimits
from cluster.errors import InvalidRequest
from cluster.observability.metrics import Metrics, make_metrics
from cluster.processing.pipeline import Prepared
from cluster.protocols.envelope import Call
from cluster.tensors import Tensor, bytes_array, tensor


class Making:
    """One float for each byte of the text, counted; an empty text cannot be read."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.num_made = 0
        self.now_s = 0.0
        self.metrics: Metrics = make_metrics(folder)
        self.cache = PreparedCache(
            PreprocessCacheConfig(enabled=True, **config),
            self.metrics.cache,
            ("m", "1"),
            clock=lambda: self.now_s,
        )

    def ask(self, text: bytes) -> Prepared:
        inputs: tuple[Tensor, ...] = (tensor("text", bytes_array([text], (1,))),)

        def make() -> Prepared:
            self.num_made += 1
            if not text:
                raise InvalidRequest("empty")
            return Prepared(arrays={"x": np.frombuffer(text, np.uint8).astype(np.float32)}, rows=1)

        return self.cache.prepared(inputs, make)


def test_equal_inputs_are_prepared_once_and_others_by_themselves(tmp_path: Path) -> None:
    making = Making(tmp_path)

    first, again, other = making.ask(b"abc"), making.ask(b"abc"), making.ask(b"abd")

    assert again is first
    assert other.arrays["x"].tolist() == [97, 98, 100]
    assert making.num_made == 2


def test_nobody_can_write_into_what_others_will_see(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        Making(tmp_path).ask(b"abc").arrays["x"][0] = 1


def test_what_is_kept_is_bounded_in_bytes_and_the_oldest_goes(tmp_path: Path) -> None:
    making = Making(tmp_path, size_bytes=10_000)
    for letter in b"abc":
        making.ask(bytes([letter]) * 1000)  # 4,000 bytes each, and what an entry costs

    assert 4000 < making.cache.size_bytes <= 10_000
    making.ask(b"c" * 1000)
    assert making.num_made == 3
    making.ask(b"a" * 1000)
    assert making.num_made == 4


def test_what_is_larger_than_all_room_is_not_kept(tmp_path: Path) -> None:
    making = Making(tmp_path, size_bytes=1000)
    making.ask(b"a" * 1000)
    making.ask(b"a" * 1000)

    assert (making.num_made, making.cache.size_bytes) == (2, 0)


def test_it_is_made_again_when_its_time_is_over(tmp_path: Path) -> None:
    making = Making(tmp_path, ttl_s=10)
    making.ask(b"abc")
    making.now_s = 9
    making.ask(b"abc")
    making.now_s = 11
    making.ask(b"abc")

    assert making.num_made == 2


def test_an_error_is_not_kept(tmp_path: Path) -> None:
    making = Making(tmp_path)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="empty"):
            making.ask(b"")

    assert making.num_made == 2


async def test_a_replica_decodes_a_photo_once_and_answers_the_same(tmp_path: Path) -> None:
    """y = 2 * x + 1 of the decoded picture."""
    metrics = make_metrics(tmp_path / "metrics")
    pixels = {"datatype": "FP32", "shape": [-1, 3, 8, 8]}
    card = ModelCard.model_validate(
        {
            "name": "m",
            "format": "fake",
            "signature": {"inputs": [{"name": "x"} | pixels], "outputs": [{"name": "y"} | pixels]},
            "preprocess": {"kind": "image", "input": "x", "size": 8, "crop_padding": 0},
        }
    )
    setup = ReplicaSetup(
        variant="m",
        card=card,
        folder=tmp_path,
        engine="fake",
        device="cpu",
        threads=1,
        is_processed=True,
        batching=BatchingConfig(),
        limits=ProcessLimits(),
        preprocess_cache=PreprocessCacheConfig(enabled=True),
    )
    replica = ModelReplica(setup, metrics=metrics)
    found = []
    for colour in ("red", "red", "blue"):
        file = io.BytesIO()
        Image.new("RGB", (16, 16), colour).save(file, "PNG")
        photo = tensor("image", bytes_array([file.getvalue()], (1,)))
        call = Call(call_id=1, rows=1, left_s=30.0, inputs=(photo,))
        (reply,) = await replica.answer([call])
        assert reply.error is None
        found.append(reply.outputs[0].array)
    await replica.close()

    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    counted = [
        each.labels("m", "1")
        for each in (metrics.cache.prepared_hits, metrics.cache.prepared_misses)
    ]
    assert [each._value.get() for each in counted] == [1, 2]
