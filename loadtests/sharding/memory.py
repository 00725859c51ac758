"""`python -m loadtests.sharding.memory`: each shard's peak resident size and its share.

A process without any weights (interpreter, torch, transformers) is the constant; it is measured
just before the weights are read. Goal: constant + 1.2 x the shard's share.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from actors.sharding.control import Ready
from loadtests.sharding.groups import group
from loadtests.sharding.random_llama import write

MIB = 2**20
PLACEMENTS: tuple[dict[str, Any], ...] = (
    {"strategy": "layer", "shards": 2},
    {"strategy": "pipeline", "shards": 4},
    {"strategy": "tensor", "shards": 2},
)


def measure(
    folder: Path, card: Any, placement: dict[str, Any], tokens: int
) -> list[dict[str, Any]]:
    """A row a shard, after one run of `tokens` positions."""
    with group(card, folder, start_timeout_s=600, step_timeout_s=300, **placement) as (
        made,
        layout,
    ):
        made.infer({"input_ids": np.arange(tokens, dtype=np.int64)[None] % 8192})
        rows = []
        ready = [found for found in made.ready if isinstance(found, Ready)]
        for shard, found in zip(layout.shards, ready, strict=True):
            peak = peak_bytes(made.pids[shard.rank])
            grown = peak - found.baseline_bytes
            rows.append(
                {
                    "placement": f"{placement['strategy']} {placement['shards']}",
                    "rank": shard.rank,
                    "share_mib": round(found.weight_bytes / MIB),
                    "constant_mib": round(found.baseline_bytes / MIB),
                    "peak_mib": round(peak / MIB),
                    "ratio": round(grown / found.weight_bytes, 3),
                }
            )
        return rows


def peak_bytes(pid: int) -> int:
    """The greatest resident size that a process ever had. Source: proc(5), VmHWM."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=11)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="Where the model is made.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        card = write(folder, num_layers=given.layers)
        for placement in PLACEMENTS:
            for row in measure(folder, card, placement, given.tokens):
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
