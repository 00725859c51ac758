"""Whether a loaded graph is what the model card says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ConfigError
from cluster.tensors import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphTensor:
    """An input or output as the graph declares it. `datatype`: V2's name or the runtime's own;
    -1 in `shape` is any size, None means that the graph does not say."""

    name: str
    datatype: str
    shape: tuple[int, ...] | None


def check_graph_inputs(
    card: Sequence[TensorSpec], graph: Sequence[GraphTensor], file: Path
) -> None:
    """Every input on both sides, of one datatype; the graph must allow all that the card promises.

    Raises: ConfigError naming the file and the tensor.
    """
    found = {tensor.name: tensor for tensor in graph}
    promised = {spec.name for spec in card}
    for tensor in graph:
        if tensor.name not in promised:
            raise _mismatch(file, "input", tensor.name, "the artefact takes it, the card has none")
    for spec in card:
        if spec.name not in found:
            raise _mismatch(file, "input", spec.name, f"the artefact takes {', '.join(found)}")
        tensor = found[spec.name]
        _check(spec, tensor, file, "input")
        for position, (said, is_) in enumerate(zip(spec.shape, tensor.shape or (), strict=False)):
            if said == -1 and is_ != -1:
                raise _mismatch(
                    file,
                    "input",
                    spec.name,
                    f"dimension {position} is any size in the card and fixed to {is_} in the "
                    "artefact",
                )


def check_graph_outputs(
    card: Sequence[TensorSpec], graph: Sequence[GraphTensor], file: Path
) -> None:
    """Every output of the card is there; the graph may give more, which nobody asks for.

    Raises: ConfigError naming the file and the tensor.
    """
    found = {tensor.name: tensor for tensor in graph}
    for spec in card:
        if spec.name not in found:
            raise _mismatch(file, "output", spec.name, f"the artefact gives {', '.join(found)}")
        _check(spec, found[spec.name], file, "output")


def _check(spec: TensorSpec, tensor: GraphTensor, file: Path, what: str) -> None:
    if spec.datatype != tensor.datatype:
        said = f"{spec.datatype} in the card, {tensor.datatype} in the artefact"
        raise _mismatch(file, what, spec.name, said)
    if tensor.shape is None:
        return
    fits = len(spec.shape) == len(tensor.shape) and all(
        -1 in (said, is_) or said == is_ for said, is_ in zip(spec.shape, tensor.shape, strict=True)
    )
    if not fits:
        said = f"shape {list(spec.shape)} in the card, {list(tensor.shape)} in the artefact"
        raise _mismatch(file, what, spec.name, said)


def _mismatch(file: Path, what: str, name: str, said: str) -> ConfigError:
    return ConfigError(f"{file}: {what} {name!r}: {said}", file=str(file), key=f"signature.{name}")
