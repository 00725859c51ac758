"""int8 by ONNX Runtime's tools: dynamic, static with calibration, and mixed by sensitivity."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cluster.config.model_card import ModelCard
from cluster.errors import ConfigError
from cluster.optimization.gate.agreement import Outputs, compare
from cluster.optimization.gate.gate import judge
from cluster.optimization.graph.optimise import fused_model, prepared
from cluster.optimization.measure.variant import answers, ranks_classes
from cluster.optimization.precision.quiet import quiet
from cluster.optimization.search.recipe import Material
from cluster.tensors import Array

NUM_GROUPS = 8
"""Sensitivity is measured on this many stretches of the graph, not node by node."""
MAX_LEFT_OUT = 3
NUM_RANGE_ITEMS = 8
"""A stretch alone is calibrated on so few: what counts is which stretch is worst."""
NUM_JUDGED_ITEMS = 32
"""On so many of the calibration items answers are compared."""


def dynamic(material: Material, folder: Path) -> None:
    """Signed weights per channel; activations are quantised as they come.

    Per tensor loses more than a point of accuracy and unsigned weights gain no speed (MiniLM, our
    measurement), so neither is a candidate.
    """
    _dynamic(material.onnx, folder)


def dynamic_fused(material: Material, folder: Path) -> None:
    """The same of the fused graph: attention becomes one quantised node."""
    with tempfile.TemporaryDirectory() as temporary:
        fused = Path(temporary) / "fused.onnx"
        with quiet():
            fused_model(material.onnx).save_model_to_file(str(fused))
        _dynamic(fused, folder)


def _dynamic(source: Path, folder: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet(), tempfile.TemporaryDirectory() as temporary:
        model = onnx.load(str(source))
        # The quantiser transposes weights of Gemm and trips over shapes that exporters noted down.
        del model.graph.value_info[:]
        plain = Path(temporary) / "plain.onnx"
        onnx.save(model, str(plain))
        quantize_dynamic(
            str(plain),
            str(folder / "model.onnx"),
            per_channel=True,
            weight_type=QuantType.QInt8,
            # Shape inference does not know the fused nodes; what they pass on is FP32 here.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def static(material: Material, folder: Path) -> None:
    """Ranges of activations seen on the calibration items; quantise and dequantise nodes (QDQ)."""
    with tempfile.TemporaryDirectory() as temporary:
        source = prepared(material.onnx, Path(temporary))
        quantise_static(material, source, folder / "model.onnx")


def symmetric(material: Material, folder: Path) -> None:
    """As `static`, with signed numbers and no zero points: the only form that TensorRT takes."""
    with tempfile.TemporaryDirectory() as temporary:
        source = prepared(material.onnx, Path(temporary))
        quantise_static(material, source, folder / "model.onnx", is_symmetric=True)


def mixed(material: Material, folder: Path) -> None:
    """Static int8, but the stretches of the graph that suffer most from it stay fp32.

    Each of eight stretches is quantised alone and its answers compared on 32 calibration items at
    most; the worst are left out, one by one, until the whole passes the gate there at half the
    distance that its limits allow, as it is judged on other items, or until three are out. Source:
    the usual layer-wise sensitivity analysis (Dong et al. 2019, HAWQ, without the Hessian).
    """
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        source = prepared(material.onnx, work)
        nodes = quantisable(source)
        if len(nodes) < 2:
            raise ConfigError("fewer than two nodes can be quantised", key="recipe")
        groups = [list(part) for part in np.array_split(nodes, min(NUM_GROUPS, len(nodes)))]
        items = material.calibration[:NUM_JUDGED_ITEMS]
        ranges = material.calibration[:NUM_RANGE_ITEMS]
        expected = _answers(source, items, material.card)
        errors: list[float] = []
        for group in groups:
            quantise_static(material, source, work / "group.onnx", nodes=group, items=ranges)
            errors.append(_error(expected, _answers(work / "group.onnx", items, material.card)))
        worst = sorted(range(len(groups)), key=lambda index: -errors[index])
        target = folder / "model.onnx"
        for num_out in range(1, min(MAX_LEFT_OUT, len(groups) - 1) + 1):
            left_out = set(worst[:num_out])
            kept = [node for i, group in enumerate(groups) if i not in left_out for node in group]
            quantise_static(material, source, target, nodes=kept)
            if _is_close(expected, _answers(target, items, material.card), material):
                break


def _is_close(expected: Sequence[Outputs], found: Sequence[Outputs], material: Material) -> bool:
    limits = material.limits
    verdict = judge(
        expected,
        found,
        labels=None,
        ranks_classes=ranks_classes(material.card),
        is_real_data=material.is_real_data,
        limits=replace(limits, min_cosine=(1 + limits.min_cosine) / 2),
    )
    return verdict.passed


def quantise_static(
    material: Material,
    source: Path,
    target: Path,
    *,
    nodes: Sequence[str] | None = None,
    items: Sequence[dict[str, Array]] | None = None,
    is_symmetric: bool = False,
) -> None:
    """Raises: ConfigError when the calibration items do not fit the graph."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Items(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.remaining = iter(items or material.calibration)

        def get_next(self) -> dict[str, Array] | None:
            return next(self.remaining, None)

    # Transformers keep normalisation and softmax in fp32: quantised, they lose much and gain
    # nothing.
    operators = ["MatMul", "Gemm", "Conv"] if material.is_transformer else None
    try:
        with quiet():
            quantize_static(
                str(source),
                str(target),
                Items(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8 if is_symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=list(nodes) if nodes is not None else None,
                op_types_to_quantize=operators,
                # TensorRT adds biases in fp32 or int32 of its own making.
                extra_options={"ActivationSymmetric": True, "QuantizeBias": False}
                if is_symmetric
                else None,
            )
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"cannot be calibrated: {said}", key="calibration") from None


def quantisable(path: Path) -> list[str]:
    """Names of the convolutions and products with weights, in the graph's order."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {each.name for each in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul")
        and any(each in weights for each in node.input)
    ]


def _answers(path: Path, items: Sequence[dict[str, Array]], card: ModelCard) -> list[Outputs]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]

    def run(item: dict[str, Array]) -> Outputs:
        return dict(zip(names, session.run(names, item), strict=True))

    return answers(run, items, card)


def _error(expected: Sequence[Outputs], found: Sequence[Outputs]) -> float:
    """1 - mean cosine over all outputs."""
    return 1 - compare(expected, found, ranks_classes=False).cosine.value
