"""Peak memory of serving a variant, in a process of its own.

python -m cluster.optimization.measure.memory CARD.json FOLDER ENGINE THREADS OPTIONS INPUTS.npz
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cluster.config.model_card import ModelCard
from cluster.engines.engine import EngineSetup
from cluster.engines.table import engine_name, make_engine
from cluster.optimization.measure.variant import Variant
from cluster.optimization.precision.quiet import quiet
from cluster.tensors import Array

if TYPE_CHECKING:
    from torch import nn

NUM_RUNS = 3
LIMIT_S = 120.0


def peak_bytes(variant: Variant, row: Mapping[str, Array], *, threads: int = 1) -> int:
    """Greatest resident memory of a process that loads the variant and runs it thrice, with the
    interpreter and the engine's libraries in it; 0 when the process failed or took minutes."""
    if variant.engine is None:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "row.npz"
        # BF16 has no place in an .npz.
        if any(array.dtype.kind not in "fiub" for array in row.values()):
            return 0
        np.savez(inputs, **row)  # type: ignore[arg-type]  # names of inputs, not of arguments
        # A file of the caller's own has no card beside it.
        card = Path(folder) / "card.json"
        card.write_text(variant.card.model_dump_json(), encoding="utf-8")
        try:
            done = subprocess.run(
                [
                    sys.executable, "-m", "cluster.optimization.measure.memory", str(card),
                    str(variant.folder), variant.engine, str(threads),
                    json.dumps(dict(variant.options)), str(inputs),
                ],
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return 0
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdigit() else 0


def peak_bytes_of_module(
    module: nn.Module, card: ModelCard, example: Mapping[str, Array], *, threads: int = 1
) -> int:
    """The same of torch computing a module eagerly: its torch.export program, operator by operator,
    in a process of its own, as a class from a notebook cannot be made there. 0 when torch cannot
    export it. `card`: of its ONNX graph, with the names of inputs and outputs."""
    import torch

    given = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in example.values())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "module.pt2"
        try:
            with torch.no_grad(), quiet():
                program = torch.export.export(module, given)
                torch.export.save(program, file)
            # A program's inputs are called as the arguments of `forward`.
            names = dict(zip(example, program.graph_signature.user_inputs, strict=True))
        except Exception:
            # Without it the search goes on: a dash in the table.
            return 0
        inputs = [
            each.model_copy(
                update={"name": str(names[each.name]), "shape": list(example[each.name].shape)}
            )
            for each in card.signature.inputs
        ]
        named = card.model_copy(
            update={
                "format": "torch_export",
                "artefact": file.name,
                "batched": False,
                "sha256": "",
                "signature": card.signature.model_copy(update={"inputs": inputs}),
            }
        )
        variant = Variant(card=named, folder=file.parent, engine="torch")
        row = {str(names[name]): array for name, array in example.items()}
        return peak_bytes(variant, row, threads=threads)


def main(
    card_file: Path, folder: Path, engine: str, threads: int, options: str, inputs: Path
) -> None:
    card = ModelCard.model_validate_json(card_file.read_text(encoding="utf-8"))
    with inputs.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        row = {name: archive[name] for name in archive.files}
    made = make_engine(
        engine_name(engine),
        EngineSetup(
            card=card, folder=folder, device="cpu", threads=threads, options=json.loads(options)
        ),
    )
    made.load()
    for _ in range(NUM_RUNS):
        made.infer(row)
    print(_peak_bytes())


def _peak_bytes() -> int:
    # Not `ru_maxrss`: on Linux a child inherits its parent's through exec (seen: every variant
    # with the searching process's 643 MB).
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    card_, folder_, engine_, threads_, options_, inputs_ = sys.argv[1:]
    main(Path(card_), Path(folder_), engine_, int(threads_), options_, Path(inputs_))
