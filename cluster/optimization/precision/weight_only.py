"""Weights of few bits, computed in fp32: for models that wait for memory, not for arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cluster.errors import ConfigError
from cluster.optimization.precision.quiet import quiet
from cluster.optimization.search.recipe import Material

BLOCK = 32


def int4(material: Material, folder: Path) -> None:
    _onnxruntime(material, folder, bits=4)


def int8(material: Material, folder: Path) -> None:
    _onnxruntime(material, folder, bits=8)


def _onnxruntime(material: Material, folder: Path, *, bits: Literal[4, 8]) -> None:
    """MatMulNBits: blocks of 32 weights share a scale; accuracy level 4 computes in int8."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )
    from onnxruntime.quantization.onnx_model import ONNXModel

    config = DefaultWeightOnlyQuantConfig(
        block_size=BLOCK, is_symmetric=True, accuracy_level=4, bits=bits
    )
    with quiet():
        plain = ONNXModel(onnx.load(str(material.onnx)))
        # Linear layers arrive as Gemm, which the quantiser passes over.
        plain.replace_gemm_with_matmul()
        del plain.model.graph.value_info[:]
        quantizer = MatMulNBitsQuantizer(plain.model, algo_config=config)
        quantizer.process()
        found = quantizer.model.model
    if not any(node.op_type == "MatMulNBits" for node in found.graph.node):
        raise ConfigError("the graph has no product with a constant matrix", key="recipe")
    onnx.save(found, str(folder / "model.onnx"))


def openvino_int8(material: Material, folder: Path) -> None:
    _openvino(material, folder, "INT8_SYM")


def openvino_int4(material: Material, folder: Path) -> None:
    _openvino(material, folder, "INT4_SYM")


def _openvino(material: Material, folder: Path, mode: str) -> None:
    import nncf
    import openvino as ov

    more = {} if mode.startswith("INT8") else {"group_size": BLOCK, "ratio": 1.0}
    with quiet():
        found = nncf.compress_weights(
            ov.convert_model(str(material.onnx)), mode=nncf.CompressWeightsMode[mode], **more
        )
        ov.save_model(found, str(folder / "model.xml"), compress_to_fp16=False)
