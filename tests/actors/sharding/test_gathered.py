from __future__ import annotations

import numpy as np
import pytest

from actors.sharding.gathered import Gathered
from cluster.errors import EngineFailed


def test_rows_come_to_stand_in_the_order_of_their_micro_batches() -> None:
    whole = np.arange(15, dtype=np.float32).reshape(5, 3)
    gathered = Gathered((2, 2, 1))

    for index, part in enumerate((whole[:2], whole[2:4], whole[4:])):
        gathered.put(index, {"y": part})

    assert np.array_equal(gathered.values()["y"], whole)


def test_an_only_answer_is_copied_as_it_is() -> None:
    memory = np.ones(3, np.int64)
    gathered = Gathered()

    gathered.put(0, {"y": memory})
    memory[:] = 7

    assert gathered.values()["y"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("shape", [(2, 3), (1, 4)])
def test_an_answer_of_another_shape_is_an_error_of_the_model(shape: tuple[int, ...]) -> None:
    gathered = Gathered((1, 1))
    gathered.put(0, {"y": np.zeros((1, 3))})

    with pytest.raises(EngineFailed, match="output y of micro-batch 1"):
        gathered.put(1, {"y": np.zeros(shape)})
