"""A torch module as an ONNX file, checked against torch on the example before anyone uses it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cluster.errors import ConfigError
from cluster.tensors import Array

if TYPE_CHECKING:
    import torch

MAX_DIFFERENCE = 1e-3
"""fp32 exports of our models differ from torch by about 1e-5; a wrong graph by more than 0.1."""


def export_onnx(
    module: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    path: Path,
    *,
    check: dict[str, torch.Tensor],
    output: str,
    dynamic_dims: dict[str, dict[int, str]],
    opset: int,
) -> float:
    """Write `path`; returns the greatest absolute difference to torch on `check`.

    `check` has other sizes than `inputs`, which are traced: a size that the tracer took for a
    constant then shows as an error or a difference.
    `dynamic_dims`: tensor name -> dimension -> its symbolic name; all other sizes are fixed.
    Raises: ConfigError when the file computes something else than the module.
    """
    import torch

    module.eval()
    with torch.no_grad(), warnings.catch_warnings():
        _silence_known_warnings()
        expected = module(*check.values()).numpy()
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes=dynamic_dims,
        )
    found = _run(path, check)
    same_shape = found.shape == expected.shape
    difference = float(np.abs(found - expected).max()) if same_shape else float("inf")
    if not difference <= MAX_DIFFERENCE:
        raise ConfigError(
            f"{path.name}: the exported graph differs from torch by {difference:.3g} (at most "
            f"{MAX_DIFFERENCE:g} is allowed); this combination of torch and onnxruntime cannot "
            "export the model",
            file=str(path),
        )
    return difference


def _run(path: Path, inputs: dict[str, torch.Tensor]) -> Array:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return np.asarray(result)


def _silence_known_warnings() -> None:
    """Only what is known and meant; anything new is shown."""
    from torch.jit._trace import TracerWarning

    # The tracing exporter is chosen: the newer one needs onnxscript, and gives the same numbers.
    warnings.filterwarnings("ignore", r"You are using the legacy TorchScript-based ONNX export")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.(onnx|jit)")
    # Positions and masks are looked up with indices that are never negative.
    warnings.filterwarnings("ignore", r"Exporting aten::index operator of advanced indexing")
    # A padding that the exporter leaves to the runtime to fold; the numbers are the same.
    warnings.filterwarnings("ignore", r"Constant folding - Only steps=1 can be constant folded")
    # Traced shape checks of the attention mask; that no size became a constant is checked after.
    warnings.filterwarnings("ignore", category=TracerWarning)
