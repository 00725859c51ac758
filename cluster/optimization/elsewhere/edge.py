"""Files for phones: LiteRT's `.tflite` and ExecuTorch's `.pte`, each run by its own runtime before
anyone is given it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from cluster.errors import ConfigError
from cluster.optimization.elsewhere.environment import Library, run_worker
from cluster.optimization.export.module import MAX_RELATIVE, named_outputs, relative_difference
from cluster.optimization.export.whole import beside, put
from cluster.tensors import Array

if TYPE_CHECKING:
    from torch import nn

LIBRARY_OF: dict[str, Library] = {".tflite": "litert", ".pte": "executorch"}
WORKER = Path(__file__).with_name("edge_worker.py")
MAX_ROWS = 8
NUM_ROUNDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeFile:
    """`difference`: the greatest to torch, relative to the largest output. `p50_ms`: of one row in
    one thread on this machine, which is no phone."""

    file: Path
    runtime: str
    num_bytes: int
    difference: float
    p50_ms: float

    def as_dict(self) -> dict[str, object]:
        return {
            "file": str(self.file),
            "runtime": self.runtime,
            "bytes": self.num_bytes,
            "max_relative_difference": self.difference,
            "p50_ms": self.p50_ms,
        }


def make_edge_file(
    module: nn.Module,
    example: Mapping[str, Array],
    target: Path,
    *,
    items: Sequence[Mapping[str, Array]] = (),
    max_bytes: int | None = None,
    max_latency_ms: float | None = None,
) -> EdgeFile:
    """Write `target` (`.tflite` or `.pte`), whole or not at all, for one row of `example`'s shape.

    `items`: rows on which its answers are compared with torch's (the example alone otherwise).
    Raises: ConfigError for a converter that is not here (saying how to get it), a module that it
    does not take, answers that differ, and a file that is too large or too slow.
    """
    import torch

    library = LIBRARY_OF[target.suffix.lower()]
    module.eval()
    alike = [
        each
        for each in items
        if all(each[name].shape == array.shape for name, array in example.items())
    ]
    rows = alike[:MAX_ROWS] or [example]
    # Below each other in an axis of their own: a row need not have one for the batch.
    columns = {name: np.stack([row[name] for row in rows]) for name in example}
    given = [torch.from_numpy(np.ascontiguousarray(array)) for array in example.values()]
    with beside(target) as folder:
        try:
            with torch.no_grad():
                program = torch.export.export(module, tuple(given))
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(
                f"{type(module).__name__} cannot be exported: {lines[0][:300]}", key="model"
            ) from None
        torch.export.save(program, folder / "program.pt2")
        np.savez(folder / "inputs.npz", **columns)  # type: ignore[arg-type]
        made = folder / target.name
        told = run_worker(
            library, WORKER, library, str(folder / "program.pt2"), str(made),
            str(folder / "inputs.npz"), str(folder / "answers.npz"), str(NUM_ROUNDS),
        )  # fmt: skip
        with np.load(folder / "answers.npz", allow_pickle=False) as archive:
            found = [archive[name] for name in archive.files]
        difference = _difference(module, columns, len(rows), found, target.name)
        result = EdgeFile(
            file=target,
            runtime=str(told["runtime"]),
            num_bytes=made.stat().st_size,
            difference=difference,
            p50_ms=median(told["wall_ms"]),
        )
        check_limits(result, max_bytes=max_bytes, max_latency_ms=max_latency_ms)
        put([made], target)
    return result


def check_limits(
    made: EdgeFile, *, max_bytes: int | None = None, max_latency_ms: float | None = None
) -> None:
    """Raises: ConfigError naming the limit that the file breaks."""
    name = made.file.name
    if max_bytes is not None and made.num_bytes > max_bytes:
        raise ConfigError(
            f"{name} would weigh {made.num_bytes / 1e6:.3g} MB, at most {max_bytes / 1e6:g} MB are "
            "allowed",
            key="max_model_size_mb",
            value=made.num_bytes,
        )
    if max_latency_ms is not None and made.p50_ms > max_latency_ms:
        raise ConfigError(
            f"{name} takes {made.p50_ms:.2f} ms a row on this machine by {made.runtime}, at most "
            f"{max_latency_ms:g} ms are allowed",
            key="target_latency_ms",
            value=made.p50_ms,
        )


def _difference(
    module: nn.Module, columns: Mapping[str, Array], num_rows: int, found: list[Array], name: str
) -> float:
    """Raises: ConfigError for answers of another shape, or further off than an export may be."""
    import torch

    expected: list[list[Array]] = []
    with torch.no_grad():
        for index in range(num_rows):
            row = [torch.from_numpy(np.asarray(array[index])) for array in columns.values()]
            expected.append([each.numpy() for each in named_outputs(module(*row)).values()])
    worst = 0.0
    for number, answer in enumerate(found):
        wanted = np.stack([row[number] for row in expected])
        if wanted.shape != answer.shape:
            raise ConfigError(
                f"{name}: output {number} is {list(answer.shape[1:])} there, "
                f"{list(wanted.shape[1:])} in torch",
                key="target",
            )
        worst = max(worst, relative_difference(wanted, answer))
    if not worst <= MAX_RELATIVE:
        raise ConfigError(
            f"{name}: answers differ from torch's by {worst:.3g} of the largest output (at most "
            f"{MAX_RELATIVE:g} is allowed)",
            key="target",
        )
    return worst
