"""No shard's process ever holds more than its share (`loadtests.sharding.memory` at 2.2 GB)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadtests.sharding.memory import MIB, measure
from loadtests.sharding.random_llama import write

pytestmark = pytest.mark.timeout(400)

RUN_MIB = 48
"""Code that the first run loads, and activations."""


@pytest.mark.parametrize(
    "placement",
    [
        pytest.param({"strategy": "layer", "shards": 3}, marks=pytest.mark.whole),
        {"strategy": "tensor", "shards": 2},
    ],
    ids=str,
)
def test_a_shards_peak_stays_within_its_share(placement: dict[str, Any], tmp_path: Path) -> None:
    card = write(tmp_path, hidden=1024, inner=4096, num_layers=6)
    whole_mib = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors")) / MIB

    rows = measure(tmp_path, card, placement, tokens=16)

    for row in rows:
        print(row)
        assert row["share_mib"] < 0.6 * whole_mib
        grown_mib = row["peak_mib"] - row["constant_mib"]
        assert grown_mib <= 1.2 * row["share_mib"] + RUN_MIB
