"""Calls of many threads in one batch: who fails alone, what is refused, what closing does."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from cluster.client.batching import DynamicBatches, batching_config
from cluster.errors import ConfigError, EngineFailed, InvalidRequest
from cluster.tensors import Array


def doubled(inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
    """13 is refused, whatever is beside it in the batch."""
    if (inputs["x"] == 13).any():
        raise InvalidRequest("unlucky")
    return {"y": 2 * inputs["x"]}


def one(value: float, width: int = 1) -> dict[str, Array]:
    return {"x": np.full((1, width), value)}


def batches(size: int, delay_ms: float = 60_000.0) -> DynamicBatches:
    return DynamicBatches(doubled, batching_config(size, delay_ms, ()), is_batched=True)


def test_a_bad_call_fails_alone() -> None:
    made = batches(4)

    def ask(value: float) -> float | str:
        try:
            return float(made.infer(one(value), ())["y"][0, 0])
        except InvalidRequest as error:
            return error.message

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, [1, 13, 2, 3])) == [2, "unlucky", 4, 6]
    assert made.num_batches == 1
    made.close()


def test_other_shapes_and_other_outputs_do_not_share_a_batch() -> None:
    made = batches(2)
    with ThreadPoolExecutor(4) as pool:
        narrow = [pool.submit(made.infer, one(i), ()) for i in (1, 2)]
        wide = [pool.submit(made.infer, one(i, 3), ()) for i in (3, 4)]
        shapes = [each.result()["y"].shape for each in (*narrow, *wide)]

    assert shapes == [(1, 1), (1, 1), (1, 3), (1, 3)]
    assert made.num_batches == 2
    made.close()


def test_a_batch_that_is_not_full_leaves_when_its_delay_is_over() -> None:
    made = batches(64, delay_ms=1.0)

    assert made.infer(one(5), ())["y"].tolist() == [[10]]
    made.close()


def test_closing_computes_what_waits_and_refuses_what_comes() -> None:
    started, go = Event(), Event()

    def slow(inputs: Mapping[str, Array], outputs: tuple[str, ...]) -> dict[str, Array]:
        started.set()
        go.wait(10)
        return doubled(inputs, outputs)

    made = DynamicBatches(slow, batching_config(1, 0, ()), is_batched=True)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(made.infer, one(1), ())
        started.wait(10)
        closing = pool.submit(made.close)
        go.set()
        assert first.result()["y"].tolist() == [[2]]
        closing.result()
    with pytest.raises(EngineFailed, match="unloaded"):
        made.infer(one(1), ())


@pytest.mark.parametrize(
    ("size", "delay_ms", "preferred", "said"),
    [
        (0, 1.0, (), "max_batch_size"),
        (8, -1.0, (), "max_queue_delay_us"),
        (8, 1.0, (9,), "preferred_batch_sizes"),
        (8, "soon", (), "max_delay_ms"),
    ],
)
def test_sizes_that_do_not_fit_name_their_key(
    size: int, delay_ms: float, preferred: tuple[int, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        batching_config(size, delay_ms, preferred)
