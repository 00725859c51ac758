"""A sentiment classifier on top of a fetched encoder: logistic regression as a tiny ONNX graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.config.model_card import BinaryPostprocess, ModelCard, SignatureCard, TensorCard
from cluster.optimization.embed import embed
from cluster.optimization.samples import MIN_RATING, SPLIT_SEED, movie_reviews, split_reviews
from cluster.optimization.sources import SentimentHeadRecipe
from cluster.optimization.workshop import Workshop
from cluster.tensors import Array

OPSET = 17
# The newest IR that onnxruntime 1.22, the oldest we allow, is sure to read.
IR_VERSION = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearHead:
    """`sigmoid(x @ weights + bias)`. Shapes: `weights` FP64 `[width]`."""

    weights: Array
    bias: float


def build(
    name: str, version: str, recipe: SentimentHeadRecipe, workshop: Workshop, folder: Path
) -> ModelCard:
    """Fill `folder` with `model.onnx`, fitted on the training half of the rated reviews."""
    store = workshop.store
    encoder = store.card(recipe.encoder)
    reviews = split_reviews(movie_reviews(store.root), num_train=recipe.num_train).train
    with workshop.progress.step(f"{name}: embed {len(reviews)} reviews with {encoder.name}"):
        texts = [review.text for review in reviews]
        vectors = embed(encoder, store.folder(encoder.name, encoder.version), texts)
    with workshop.progress.step(f"{name}: fit"):
        targets = np.array([review.is_positive for review in reviews], dtype=np.float64)
        head = fit(vectors.astype(np.float64), targets, inverse_l2=recipe.inverse_l2)
        write_onnx(head, folder / "model.onnx")
    sources = workshop.sources
    return ModelCard(
        name=name,
        version=version,
        format="onnx",
        artefact="model.onnx",
        signature=SignatureCard(
            inputs=[TensorCard(name="embedding", datatype="FP32", shape=[-1, vectors.shape[1]])],
            outputs=[TensorCard(name="probability", datatype="FP32", shape=[-1, 1])],
        ),
        postprocess=BinaryPostprocess(input="probability"),
        provenance=workshop.provenance(
            sources.samples[recipe.reviews].archive,
            file="movieReviewSnippets_GroundTruth.txt",
            recipe=f"L2 logistic regression, C = {recipe.inverse_l2:g}, on {len(reviews)} reviews "
            f"(|rating| >= {MIN_RATING}, split seed {SPLIT_SEED}) embedded by {encoder.name} "
            f"version {encoder.version}",
            notes="ratings: Hutto and Gilbert, ICWSM 2014",
        ),
    )


def fit(vectors: Array, targets: Array, *, inverse_l2: float) -> LinearHead:
    """The minimum of `|w|² / 2 + C · Σ log-loss` (the bias is not penalised).

    The objective of scikit-learn's LogisticRegression; strictly convex, so the result does not
    depend on the start. Shapes: `vectors` `[n, width]`, `targets` `[n]` of 0 and 1.
    """
    import torch

    inputs = torch.from_numpy(np.asarray(vectors, dtype=np.float64))
    wanted = torch.from_numpy(np.asarray(targets, dtype=np.float64))
    weights = torch.zeros(inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weights, bias],
        max_iter=1000,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def objective() -> torch.Tensor:
        optimiser.zero_grad()
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            inputs @ weights + bias, wanted, reduction="sum"
        )
        total: torch.Tensor = weights @ weights / 2 + inverse_l2 * losses
        total.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        return total

    optimiser.step(objective)  # type: ignore[no-untyped-call]  # neither for this
    return LinearHead(weights=weights.detach().numpy(), bias=float(bias.detach()))


def write_onnx(head: LinearHead, path: Path) -> None:
    """`embedding` FP32 `[batch, width]` -> `probability` FP32 `[batch, 1]`."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    width = len(head.weights)
    weights = np.asarray(head.weights, dtype=np.float32).reshape(width, 1)
    bias = np.array([head.bias], dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["embedding", "weights", "bias"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["probability"]),
        ],
        "sentiment_head",
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(
        graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    checker.check_model(model, full_check=True)
    save(model, str(path))
