"""fp16 weights and products; inputs and outputs keep their types. For GPUs: CPUs cast it back."""

from __future__ import annotations

from pathlib import Path

from cluster.optimization.precision.quiet import quiet
from cluster.optimization.search.recipe import Material


def fp16(material: Material, folder: Path) -> None:
    """By ONNX Runtime's converter, which leaves operators in fp32 that overflow or have no fp16."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        model = onnx.load(str(material.onnx))
        del model.graph.value_info[:]
        found = convert_float_to_float16(model, keep_io_types=True)
    onnx.save(found, str(folder / "model.onnx"))
