from __future__ import annotations

import numpy as np
import pytest

from cluster.config.model_card import BinaryPostprocess
from cluster.processing.binary import decide

SPEC = BinaryPostprocess(input="p", labels=("ham", "spam"), threshold=0.5)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_at_the_threshold_it_is_positive(shape: tuple[int, ...]) -> None:
    labels, scores = decide(np.array([0.25, 0.5, 1.0], np.float64).reshape(shape), SPEC)

    assert labels.tolist() == [b"ham", b"spam", b"spam"]
    assert scores.dtype == np.float32
    assert scores.tolist() == [0.25, 0.5, 1.0]
