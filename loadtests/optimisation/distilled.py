"""MiniLM's six layers teach three: speed, closeness, and what the sentiment task loses.

    python -m loadtests.optimisation.distilled --steps 150

Learns from reviews of the training half, is judged on held-out ones. Prints one JSON object. Needs
the fetched models.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from cluster.config.store import ModelStore
from cluster.optimization.embed import embed
from cluster.optimization.gate.intervals import paired_difference
from cluster.optimization.measure.timing import interleave, speedup
from cluster.optimization.measure.variant import Variant, opened
from cluster.optimization.samples import movie_reviews, split_reviews
from cluster.optimization.sentiment import fit
from cluster.optimization.training.distil import distil
from cluster.optimization.training.lessons import Schedule

TEACHER = "all-minilm-l6-v2"
NUM_TRAIN = 1500
C = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="loadtests.optimisation.distilled", description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("models"))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--judged", type=int, default=2000)
    given = parser.parse_args()
    store = ModelStore(given.store)
    reviews = split_reviews(movie_reviews(given.store), num_train=NUM_TRAIN)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "data").mkdir()
        texts = "\n".join(each.text for each in reviews.train)
        (folder / "data" / "reviews.txt").write_text(texts, encoding="utf-8")
        (folder / "student").mkdir()
        made = distil(
            f"{TEACHER}-torch", f"layers:{given.layers}", folder / "student",
            data=folder / "data", store=store, workspace=folder / "work",
            schedule=Schedule(steps=given.steps, learning_rate=3e-4), name="student",
        )  # fmt: skip
        student = Variant(card=made.card, folder=made.folder)
        teacher = Variant(card=store.card(TEACHER), folder=store.folder(TEACHER))
        right = [_right(each, reviews, given.judged) for each in (teacher, student)]
        change = paired_difference(
            gained=int((right[1] & ~right[0]).sum()), lost=int((right[0] & ~right[1]).sum()),
            num=len(right[0]),
        )  # fmt: skip
        row = np.arange(5, 133, dtype=np.int64)[None]
        inputs = {
            "input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": 0 * row,
        }  # fmt: skip
        with opened(teacher) as first, opened(student) as second:
            timings = interleave(
                {"teacher": lambda: first(inputs), "student": lambda: second(inputs)}, num_rounds=20
            )
        faster = speedup(timings["student"], timings["teacher"], by_cpu=True)
    print(
        json.dumps(
            {
                **made.as_dict(),
                "speedup_128_tokens": faster.as_dict(),
                "accuracy": [float(each.mean()) for each in right],
                "accuracy_change_points": {
                    name: round(100 * getattr(change, name), 2) for name in ("value", "low", "high")
                },
                "judged": len(right[0]),
            },
            indent=1,
        )
    )


def _right(variant: Variant, reviews, num: int):  # type: ignore[no-untyped-def]
    """Which held-out reviews a logistic regression on the variant's embeddings gets right."""
    train, judged = reviews.train, reviews.test[:num]
    vectors = embed(variant.card, variant.folder, [each.text for each in (*train, *judged)])
    targets = np.array([each.is_positive for each in train], np.float64)
    head = fit(vectors[: len(train)].astype(np.float64), targets, inverse_l2=C)
    said = vectors[len(train) :] @ head.weights + head.bias > 0
    return said == np.array([each.is_positive for each in judged])


if __name__ == "__main__":
    main()
