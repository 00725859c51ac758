"""Whether a request fits a model's signature. Texts keep the facts that Triton's have."""

from __future__ import annotations

from cluster.errors import InvalidRequest
from cluster.requests import InferenceRequest
from cluster.tensors import Signature, Tensor, TensorSpec


def check_request(
    request: InferenceRequest, signature: Signature, *, max_batch_size: int, is_batched: bool
) -> int:
    """The number of rows the request asks for (1 for a model that is not batched).

    Shapes: with `is_batched` the first dimension of every input is the batch.
    Raises: InvalidRequest for an unknown, missing or ill-fitting input, batch sizes that differ,
    are 0 or above `max_batch_size`, or an output the model does not have.
    """
    _check_names(request, signature)
    rows: int | None = None
    first = ""
    for tensor in request.inputs:
        spec = signature.input(tensor.name)
        assert spec is not None  # the names were checked
        _check_tensor(tensor, spec, request.model, is_batched)
        if not is_batched:
            continue
        if rows is None:
            rows, first = tensor.shape[0], tensor.name
        elif tensor.shape[0] != rows:
            raise InvalidRequest(
                f"batch sizes of the inputs for model '{request.model}' differ: '{first}' has "
                f"{rows}, '{tensor.name}' has {tensor.shape[0]}"
            )
    if rows is None:
        return 1
    if rows == 0:
        raise InvalidRequest(
            f"inference request for model '{request.model}' has an empty batch: batch-size must be "
            f"from 1 to {max_batch_size}, got 0 in input '{first}'"
        )
    if rows > max_batch_size:
        raise InvalidRequest(
            f"inference request batch-size must be <= {max_batch_size} for '{request.model}', "
            f"got {rows} in input '{first}'"
        )
    return rows


def unexpected_input(name: str, model: str, signature: Signature) -> InvalidRequest:
    """For an input that the model has not."""
    known = [spec.name for spec in signature.inputs]
    return InvalidRequest(
        f"unexpected inference input '{name}' for model '{model}'. "
        f"Expected input(s) {_listed(known)}"
    )


def _check_names(request: InferenceRequest, signature: Signature) -> None:
    known = [spec.name for spec in signature.inputs]
    given = [tensor.name for tensor in request.inputs]
    for name in given:
        if name not in known:
            raise unexpected_input(name, request.model, signature)
    missing = [name for name in known if name not in given]
    if missing:
        raise InvalidRequest(
            f"expected {len(known)} inputs but got {len(given)} inputs for model "
            f"'{request.model}'. Got input(s) {_listed(given)}, but missing required input(s) "
            f"{_listed(missing)}. Please provide all required input(s)."
        )
    for output in request.outputs:
        if signature.output(output.name) is None:
            outputs = [spec.name for spec in (*signature.outputs, *signature.extra_outputs)]
            raise InvalidRequest(
                f"unexpected inference output '{output.name}' for model '{request.model}'. "
                f"Known output(s) {_listed(outputs)}"
            )


def _check_tensor(tensor: Tensor, spec: TensorSpec, model: str, is_batched: bool) -> None:
    if tensor.datatype != spec.datatype:
        raise InvalidRequest(
            f"inference input '{tensor.name}' data-type is '{tensor.datatype}', but model "
            f"'{model}' expects '{spec.datatype}'"
        )
    got, expected = tensor.shape, spec.shape
    if is_batched:
        # The batch has its own rule and its own text.
        expected = (-1, *expected[1:])
    if len(got) != len(expected) or any(
        want not in (-1, size) for want, size in zip(expected, got, strict=True)
    ):
        raise InvalidRequest(
            f"unexpected shape for input '{tensor.name}' for model '{model}'. Expected "
            f"{_dims(expected)}, got {_dims(got)}"
        )


def _dims(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def _listed(names: list[str]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"
