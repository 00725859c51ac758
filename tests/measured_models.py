"""Models of which the truth is known: how long they take and how often they are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SOURCE = '''
import time
import zlib

import numpy as np


def is_right(name, x, per_mille):
    """Whether a variant knows the answer for `x`; each has blind spots of its own."""
    return zlib.crc32(f"{name} {x}".encode()) % 1000 < per_mille


class Measured:
    """label = x modulo 7 where the variant knows it, else -1. A batch takes its time in sleep."""

    def load(self, context):
        pass

    def infer(self, inputs):
        time.sleep(SECONDS)
        labels = [
            [int(x) % 7 if is_right("NAME", int(x), PER_MILLE) else -1] for x in inputs["x"].flat
        ]
        return {"label": np.array(labels, np.int32)}
'''

MODELS: dict[str, tuple[float, int]] = {
    # name: (seconds a batch, right in a thousand)
    "control": (0.010, 950),
    "equal": (0.010, 950),
    "slower": (0.012, 950),
    "worse": (0.010, 920),
}


def truth(x: int) -> int:
    return x % 7


def write_store(store: Path) -> None:
    for name, (seconds, per_mille) in MODELS.items():
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
        source = SOURCE.replace("SECONDS", str(seconds)).replace("PER_MILLE", str(per_mille))
        source = source.replace("NAME", name)
        (folder / "measured.py").write_text(source)


def experiment(arm: str, weight: float = 50, **sections: Any) -> dict[str, Any]:
    return {"split": {"control": 100 - weight, arm: weight}, **sections}


def serve_file(
    store: Path, file: Path, experiments: dict[str, Any], *, doors: int = 1, batch: int = 1
) -> None:
    variants = {
        name: {
            "source": name,
            "device": "cpu",
            "replicas": 1,
            "batching": {"max_batch_size": batch, "max_queue_delay_us": 0},
        }
        for name in MODELS
    }
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
                    "variants": variants,
                    "experiments": experiments,
                },
            }
        ],
    }
    file.write_text(yaml.safe_dump(content))
