"""Models of which the truth is known: how long they take and how often they are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SOURCE = '''
import time
import zlib

import numpy as np


def is_right(x):
    """Whether the variant knows the answer for `x`; each has blind spots of its own."""
    return zlib.crc32(f"NAME {x}".encode()) % 1000 < PER_MILLE


class Measured:
    """label = x modulo 7 where the variant knows it, else -1."""

    def load(self, context):
        pass

    def infer(self, inputs):
        PASS_TIME
        labels = [[int(x) % 7 if is_right(int(x)) else -1] for x in inputs["x"].flat]
        return {"label": np.array(labels, np.int32)}
'''
SPIN = """ends_s = time.thread_time() + SECONDS
        while time.thread_time() < ends_s:
            pass"""

SLEEPING: dict[str, tuple[float, int]] = {
    # name: (seconds a batch, right in a thousand)
    "control": (0.010, 950),
    "equal": (0.010, 950),
    "slower": (0.012, 950),
    "worse": (0.010, 920),
}
LONG: dict[str, tuple[float, int]] = {"long": (0.060, 950), "longer": (0.072, 950)}
"""One slower by a fifth than the other, and both so long that what a busy machine adds to each
request (tens of milliseconds) leaves most of that fifth to be seen. The control is the first one by
name, as tests write their files sorted."""
RAW = {"spin": 0.004, "spin-twin": 0.004}
"""CPU seconds a batch of models that are always right: what a small model costs on one core."""


def truth(x: int) -> int:
    return x % 7


def write_store(store: Path) -> None:
    for name in (*SLEEPING, *LONG, *RAW):
        folder = store / name / "1"
        folder.mkdir(parents=True)
        card = {
            "name": name,
            "format": "python",
            "python_class": "measured.py:Measured",
            "signature": {
                "inputs": [{"name": "x", "datatype": "INT32", "shape": [-1, 1]}],
                "outputs": [{"name": "label", "datatype": "INT32", "shape": [-1, 1]}],
            },
        }
        (folder / "model.yaml").write_text(yaml.safe_dump(card))
        (folder / "measured.py").write_text(_source(name))


def _source(name: str) -> str:
    if name in RAW:
        seconds, per_mille, how = RAW[name], 1000, SPIN
    else:
        seconds, per_mille = (SLEEPING | LONG)[name]
        how = "time.sleep(SECONDS)"
    source = SOURCE.replace("PASS_TIME", how).replace("SECONDS", str(seconds))
    return source.replace("PER_MILLE", str(per_mille)).replace("NAME", name)


def variants_of(*, batch: int, names: tuple[str, ...] = (*SLEEPING, *RAW)) -> dict[str, Any]:
    batching = {"max_batch_size": batch, "max_queue_delay_us": 0}
    return {
        name: {"source": name, "device": "cpu", "replicas": 1, "batching": batching}
        for name in names
    }


def experiment(arm: str, weight: float = 50, **sections: Any) -> dict[str, Any]:
    return {"split": {"control": 100 - weight, arm: weight}, **sections}


def serve_file(
    store: Path, file: Path, experiments: dict[str, Any], *, doors: int = 1, batch: int = 1
) -> None:
    """A serve config of the sleeping models."""
    content = {
        "http_options": {"host": "127.0.0.1", "port": 0},
        "applications": [
            {
                "name": "squadron",
                "route_prefix": "/",
                "import_path": "actors.app:build",
                "args": {
                    "server": {"doors_per_node": doors},
                    "store": {"path": str(store)},
                    "variants": variants_of(batch=batch, names=tuple(SLEEPING)),
                    "experiments": experiments,
                },
            }
        ],
    }
    file.write_text(yaml.safe_dump(content))
