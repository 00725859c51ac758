"""An ONNX graph under another name, with its weights where they are files of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.optimization.intake.files import external_data, external_tensors


def copy_graph(source: Path, target: Path) -> list[Path]:
    """Write the graph to `target`, and each file of its weights beside it as `TARGET.data` (with a
    number where there are several); returns the files, `target` first.

    The weights are copied, never read into memory. Raises: ConfigError when one is missing.
    """
    import onnx

    weights = external_data(source, "onnx")
    if not weights:
        shutil.copyfile(source, target)
        return [target]
    names = {
        file.name: f"{target.name}.data" if len(weights) == 1 else f"{target.name}.{number}.data"
        for number, file in enumerate(weights)
    }
    model = onnx.load(str(source), load_external_data=False)
    for tensor in external_tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = names[Path(entry.value).name]
    target.write_bytes(model.SerializeToString())
    for file in weights:
        shutil.copyfile(file, target.with_name(names[file.name]))
    return [target, *(target.with_name(names[file.name]) for file in weights)]
