"""The model that combines members: logistic regression on what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.tensors import Array

OPSET = 17
# The newest IR that onnxruntime 1.22, the oldest we allow, is sure to read.
IR_VERSION = 10
NUM_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackingHead:
    """`softmax(concat(members) @ weights + bias)`; a member's NaN count as its `means`.

    Shapes: `weights` FP64 `[width, classes]`, `bias` `[classes]`, `means` `[width]`; `widths` are
    those of the members, in their order.
    """

    weights: Array
    bias: Array
    means: Array
    widths: Mapping[str, int]
    classes: tuple[str, ...]

    def probabilities(self, members: Mapping[str, Array]) -> Array:
        """Shapes: FP64 `[rows, classes]`."""
        given = stacked(members)
        logits = np.where(np.isnan(given), self.means, given) @ self.weights + self.bias
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: Array = exponents / exponents.sum(axis=1, keepdims=True)
        return found


def stacked(members: Mapping[str, Array]) -> Array:
    """Shapes: `[rows, …]` each -> FP64 `[rows, sum of widths]`."""
    return np.concatenate(
        [array.reshape(len(array), -1).astype(np.float64) for array in members.values()], axis=1
    )


def fit(members: Mapping[str, Array], labels: Sequence[str], *, inverse_l2: float) -> StackingHead:
    """The minimum of `|W|² / 2 + C · Σ log-loss` (the bias is not penalised).

    The objective of scikit-learn's LogisticRegression; strictly convex in W, so the result does not
    depend on the start.
    """
    import torch

    given = stacked(members)
    classes = tuple(sorted(set(labels)))
    targets = torch.tensor([classes.index(label) for label in labels])
    inputs = torch.from_numpy(given)
    weights = torch.zeros(given.shape[1], len(classes), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(classes), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weights, bias],
        max_iter=1000,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def objective() -> torch.Tensor:
        optimiser.zero_grad()
        losses = torch.nn.functional.cross_entropy(
            inputs @ weights + bias, targets, reduction="sum"
        )
        total: torch.Tensor = (weights * weights).sum() / 2 + inverse_l2 * losses
        total.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        return total

    optimiser.step(objective)  # type: ignore[no-untyped-call]  # neither for this
    return StackingHead(
        weights=weights.detach().numpy(),
        bias=bias.detach().numpy(),
        means=given.mean(axis=0),
        widths={name: stacked({name: array}).shape[1] for name, array in members.items()},
        classes=classes,
    )


def out_of_fold_accuracy(
    members: Mapping[str, Array], labels: Sequence[str], *, inverse_l2: float
) -> float:
    """The share of rows that a head fitted on the other folds gets right. Every fifth row makes a
    fold, so the rows' order should say nothing."""
    folds = np.arange(len(labels)) % NUM_FOLDS
    truth = np.array(labels, dtype=np.object_)
    num_right = 0
    for fold in range(NUM_FOLDS):
        held = folds == fold
        if not held.any() or held.all():
            continue
        rest = {name: array[~held] for name, array in members.items()}
        head = fit(rest, truth[~held].tolist(), inverse_l2=inverse_l2)
        found = head.probabilities({name: array[held] for name, array in members.items()})
        best = np.array(head.classes, dtype=np.object_)[found.argmax(axis=1)]
        num_right += int((best == truth[held]).sum())
    return num_right / len(labels)


def write_onnx(head: StackingHead, path: Path) -> None:
    """An input FP32 `[batch, width]` a member -> `probabilities` FP32 `[batch, classes]`."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    nodes, values = (
        [],
        [
            numpy_helper.from_array(head.weights.astype(np.float32), "weights"),
            numpy_helper.from_array(head.bias.astype(np.float32), "bias"),
        ],
    )
    start = 0
    for index, (name, width) in enumerate(head.widths.items()):
        means = head.means[start : start + width].astype(np.float32)
        values.append(numpy_helper.from_array(means, f"means_{index}"))
        nodes.append(helper.make_node("IsNaN", [name], [f"is_missing_{index}"]))
        nodes.append(
            helper.make_node(
                "Where", [f"is_missing_{index}", f"means_{index}", name], [f"filled_{index}"]
            )
        )
        start += width
    filled = [f"filled_{index}" for index in range(len(head.widths))]
    nodes.append(helper.make_node("Concat", filled, ["features"], axis=1))
    nodes.append(helper.make_node("Gemm", ["features", "weights", "bias"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    size = len(head.classes)
    graph = helper.make_graph(
        nodes,
        "stacking_head",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
            for name, width in head.widths.items()
        ],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", size])],
        values,
    )
    model = helper.make_model(
        graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    checker.check_model(model, full_check=True)
    save(model, str(path))
