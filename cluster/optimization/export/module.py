"""A torch module as ONNX: traced by torch.export, checked against torch before anyone uses it."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.config.model_card import ModelCard, Provenance, SignatureCard, TensorCard
from cluster.errors import ConfigError
from cluster.tensors import Array, datatype_of

if TYPE_CHECKING:
    import torch
    from torch import nn

OPSET = 18
MAX_INSIDE_BYTES = 1_900_000_000
"""A protobuf message holds 2 GiB, the nodes and constants included."""
MAX_RELATIVE = 1e-3
"""fp32 exports differ from torch by about 1e-6 of the largest number; a wrong graph by far more."""


def export_module(
    module: nn.Module,
    example: Mapping[str, Array],
    folder: Path,
    *,
    name: str,
    max_inside_bytes: int = MAX_INSIDE_BYTES,
) -> ModelCard:
    """Write `folder/model.onnx`; its inputs are named as `example`, in the order of `forward`.

    The batch dimension is free when the module can be traced with one and every input has one;
    other sizes are those of `example`. Weights of more than `max_inside_bytes` lie beside the
    graph, in `model.onnx.data`.

    Raises: ConfigError naming what the exporter does not support.
    """
    import torch

    inputs = {each: torch.from_numpy(np.ascontiguousarray(a)) for each, a in example.items()}
    with torch.no_grad():
        try:
            answer = module(*inputs.values())
        except Exception as error:
            raise ConfigError(
                f"{type(module).__name__} fails on its example inputs "
                f"({_shapes(example)}): {_first_line(error)}",
                key="input",
            ) from None
    outputs = named_outputs(answer)
    path = folder / "model.onnx"
    can_batch = all(a.ndim > 0 and a.shape[0] == 1 for a in example.values()) and all(
        value.ndim > 0 and value.shape[0] == 1 for value in outputs.values()
    )
    weights = (*module.parameters(), *module.buffers())
    is_large = sum(each.numel() * each.element_size() for each in weights) > max_inside_bytes
    write = partial(_export, module, outputs=list(outputs), path=path, weights_beside=is_large)
    batched = can_batch and _try_batched(write, inputs)
    if not batched:
        write(inputs, batched=False)
    difference = _check(module, example, list(outputs), path, batched=batched)
    arrays = {each: value.detach().numpy() for each, value in outputs.items()}
    return ModelCard(
        name=name,
        format="onnx",
        artefact="model.onnx",
        batched=batched,
        signature=SignatureCard(
            inputs=tensor_cards(example, batched=batched),
            outputs=tensor_cards(arrays, batched=batched),
        ),
        provenance=Provenance(
            file="model.onnx",
            recipe=f"torch.onnx.export (dynamo), opset {OPSET}",
            notes=f"differs from torch by at most {difference:.1e} of the largest output",
        ),
    )


def named_outputs(answer: Any) -> dict[str, torch.Tensor]:
    """The tensors of a module's answer: a tensor, a sequence of them, or a mapping by name.

    Raises: ConfigError for anything else.
    """
    import torch

    if isinstance(answer, torch.Tensor):
        return {"output": answer}
    if isinstance(answer, Mapping):
        found = {str(name): value for name, value in answer.items() if value is not None}
    elif isinstance(answer, list | tuple):
        found = {f"output_{index}": value for index, value in enumerate(answer)}
    else:
        found = {}
    if not found or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ConfigError(
            f"the module answers {type(answer).__name__}; a tensor, or tensors in a sequence or a "
            "mapping are needed",
            key="output",
        )
    return found


def _try_batched(write: Callable[..., None], inputs: dict[str, torch.Tensor]) -> bool:
    """Traced with two rows, as one row may be taken for a constant."""
    import torch

    doubled = {each: torch.cat([value, value]) for each, value in inputs.items()}
    try:
        write(doubled, batched=True)
    except ConfigError:
        # Some graphs fix their batch (a state of fixed rows): then exactly one row is served.
        return False
    return True


def _export(
    module: nn.Module,
    inputs: dict[str, torch.Tensor],
    *,
    outputs: list[str],
    path: Path,
    weights_beside: bool,
    batched: bool,
) -> None:
    import torch

    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in inputs) if batched else None
    try:
        with torch.no_grad(), _quiet():
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                str(path),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=shapes,
                external_data=weights_beside,
                verbose=False,
            )
    except Exception as error:
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.data").unlink(missing_ok=True)
        raise ConfigError(
            f"{type(module).__name__} cannot be exported to ONNX: {_reason(error)}", key="model"
        ) from None


def _check(
    module: nn.Module,
    example: Mapping[str, Array],
    outputs: list[str],
    path: Path,
    *,
    batched: bool,
) -> float:
    """The greatest difference to torch, relative to the largest output. Raises: ConfigError."""
    import onnxruntime
    import torch

    rows = 3 if batched else 1
    given = {name: np.concatenate([array] * rows) if batched else array
             for name, array in example.items()}  # fmt: skip
    with torch.no_grad():
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in given.values()]
        expected = [value.numpy() for value in named_outputs(module(*tensors)).values()]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    takes = {each.name for each in session.get_inputs()}
    found = session.run(outputs, {name: a for name, a in given.items() if name in takes})
    pairs = zip(expected, found, strict=True)
    worst = max((relative_difference(a, b) for a, b in pairs), default=0.0)
    if not worst <= MAX_RELATIVE:
        raise ConfigError(
            f"{path.name}: the exported graph differs from torch by {worst:.3g} of the largest "
            f"output (at most {MAX_RELATIVE:g} is allowed)",
            file=str(path),
        )
    return worst


def relative_difference(wanted: Array, found: Array) -> float:
    """The greatest difference of two arrays over the largest number wanted; infinite where one has
    another shape, or no number where the other has one."""
    if wanted.shape != found.shape:
        return math.inf
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    are_numbers = np.isfinite(a)
    if not np.array_equal(a[~are_numbers], b[~are_numbers], equal_nan=True):
        return math.inf
    a, b = a[are_numbers], b[are_numbers]
    if not np.isfinite(b).all():
        return math.inf
    scale = float(np.abs(a).max(initial=0.0)) or 1.0
    return float(np.abs(a - b).max(initial=0.0)) / scale


def _shapes(example: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in example.items())


def _reason(error: BaseException) -> str:
    """The innermost cause: the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:400] if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports to the console what the caller learns from the answer or the error."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    before = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, before, strict=True):
            each.setLevel(level)


def tensor_cards(arrays: Mapping[str, Array], *, batched: bool) -> list[TensorCard]:
    """Cards of arrays of one row; the batch dimension becomes free."""
    return [
        TensorCard(
            name=name,
            datatype=datatype_of(array),
            shape=[-1, *array.shape[1:]] if batched else list(array.shape),
        )
        for name, array in arrays.items()
    ]
