"""Where the SDK's tests work: a store with small models, and clients of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.client import Client
from cluster.config.model_card import ModelCard
from cluster.config.store import new_version, seal
from cluster.tensors import Array
from tests.cluster.optimization.tiny_nets import TinyMlp, exported

ECHO = {
    "name": "echo",
    "format": "fake",
    "signature": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`store` holds `echo` (y = 2 * x + 1, exactly) and `mlp`, a torch module as ONNX; `llama` is a
    Hugging Face directory of random weights."""

    store: Path
    llama: Path

    def client(self) -> Client:
        return Client(store=self.store, device="cpu")


def make_place(folder: Path) -> Place:
    from tests.cluster.engines.sharded.directories import llama, saved

    store = folder / "store"
    with new_version(store, "echo", "1") as made:
        seal(made, ModelCard.model_validate(ECHO))
    with new_version(store, "mlp", "1") as made:
        seal(made, exported(TinyMlp(), made, "mlp"))
    saved(llama(), folder / "llama")
    return Place(store=store, llama=folder / "llama")


def row(value: float = 1.0, rows: int = 1) -> Array:
    """For `echo`: 2 * value + 1 comes back."""
    import numpy as np

    return np.full((rows, 4), value, np.float32)
