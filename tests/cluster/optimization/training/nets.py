"""A task that a small network learns in seconds: scikit-learn's handwritten digits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cluster.optimization.intake.data import Dataset
from cluster.tensors import Array


class DigitNet(nn.Module):
    """`[batch, 1, 8, 8]` -> scores of ten digits."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        )  # fmt: skip
        self.hidden = nn.Linear(2 * width * 16, 64)
        self.head = nn.Linear(64, 10)
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(torch.relu(self.hidden(self.body(image).flatten(1))))
        return scores

    def example_inputs(self) -> dict[str, Array]:
        return {"image": np.zeros((1, 1, 8, 8), np.float32)}


@lru_cache
def digits() -> tuple[Array, Array]:
    """Pictures `[1797, 1, 8, 8]` from 0 to 1, and their digits."""
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    found = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    pictures = (found.images[order, None] / 16).astype(np.float32)
    return pictures, found.target[order].astype(np.int64)


@lru_cache
def trained_net() -> DigitNet:
    """Trained on the last 900 pictures; `digit_data` is of the others."""
    pictures, labels = (torch.from_numpy(each[897:]) for each in digits())
    torch.set_num_threads(1)
    net = DigitNet().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(120):
        rows = torch.randint(len(labels), (64,), generator=draw)
        loss = functional.cross_entropy(net(pictures[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval().requires_grad_(False)


def digit_data(num: int = 600) -> Dataset:
    pictures, labels = digits()
    return Dataset(
        origin=f"{num} handwritten digits",
        is_real=True,
        items=tuple({"image": pictures[i : i + 1]} for i in range(num)),
        labels=tuple(int(each) for each in labels[:num]),
    )


def accuracy(net: nn.Module, data: Dataset) -> float:
    """Share of right answers on the items that nobody learns from."""
    _, judged = data.split()
    with torch.no_grad():
        rows = torch.from_numpy(np.concatenate([item["image"] for item in judged.items]))
        right = net(rows).argmax(1).numpy() == np.array(judged.labels)
    return float(right.mean())
