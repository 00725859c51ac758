"""Models of a few numbers, one for each engine, that all compute `y = 2 * x + 1` on `[-1, 4]`."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper

from cluster.config.model_card import ModelCard
from cluster.engines.engine import EngineSetup
from cluster.models import EngineName

X = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
Y = {"name": "y", "datatype": "FP32", "shape": [-1, 4]}

PYTHON_SOURCE = """
import sys

class Doubler:
    def load(self, context):
        self.rows_seen = 0
        self.mode = context.options.get("mode", "")

    def infer(self, inputs):
        x = inputs["x"]
        if self.mode == "raise":
            raise ZeroDivisionError("the user's own words")
        if self.mode == "exit":
            sys.exit(3)
        if self.mode == "interrupt":
            raise KeyboardInterrupt
        if self.mode == "double":
            return {"y": x.astype("float64")}
        if self.mode == "short":
            return {"y": x[:1]}
        if self.mode == "list":
            return {"y": x.tolist()}
        if self.mode == "none":
            return None
        if self.mode == "more":
            return {"y": x, "z": x}
        if self.mode == "nothing":
            return {}
        if self.mode == "write":
            x += 1
        return {"y": 2 * x + 1}
"""


class Doubled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("two", torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two * x + 1


def card(**changes: object) -> ModelCard:
    fields: dict[str, object] = {
        "name": "tiny",
        "format": "fake",
        "signature": {"inputs": [X], "outputs": [Y]},
    }
    return ModelCard.model_validate(fields | changes)


def save_onnx(
    file: Path,
    onnx_type: int = TensorProto.FLOAT,
    batch: str | int = "batch",
    node: str = "",
) -> None:
    """Computed in float32 whatever the type of `x` and `y`."""
    takes = helper.make_tensor_value_info("x", onnx_type, [batch, 4])
    gives = helper.make_tensor_value_info("y", onnx_type, [batch, 4])
    if node:
        nodes = [helper.make_node(node, ["x"], ["y"])]
    else:
        nodes = [
            helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["wide", "two"], ["doubled"]),
            helper.make_node("Add", ["doubled", "one"], ["sum"]),
            helper.make_node("Cast", ["sum"], ["y"], to=onnx_type),
        ]
    constants = [
        helper.make_tensor("two", TensorProto.FLOAT, [], [2.0]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
    ]
    graph = helper.make_graph(nodes, "tiny", [takes], [gives], [] if node else constants)
    save_graph(file, graph)


def save_graph(file: Path, graph: onnx.GraphProto) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    file.write_bytes(model.SerializeToString())


def _fake(folder: Path) -> EngineSetup:
    return EngineSetup(card=card(), folder=folder)


def _onnxruntime(folder: Path) -> EngineSetup:
    save_onnx(folder / "model.onnx")
    return EngineSetup(card=card(format="onnx", artefact="model.onnx"), folder=folder)


def _openvino(folder: Path) -> EngineSetup:
    import openvino

    save_onnx(folder / "made.onnx")
    openvino.save_model(openvino.convert_model(folder / "made.onnx"), folder / "model.xml")
    return EngineSetup(card=card(format="openvino", artefact="model.xml"), folder=folder)


def _onnx_on_openvino(folder: Path) -> EngineSetup:
    return _onnxruntime(folder)


def _torchscript(folder: Path) -> EngineSetup:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(Doubled(), (torch.zeros(2, 4),))
        torch.jit.save(traced, str(folder / "model.pt"))
    return EngineSetup(card=card(format="torchscript", artefact="model.pt"), folder=folder)


def _torch_export(folder: Path) -> EngineSetup:
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(Doubled(), (torch.zeros(2, 4),), dynamic_shapes=shapes)
    torch.export.save(program, folder / "model.pt2")
    return EngineSetup(card=card(format="torch_export", artefact="model.pt2"), folder=folder)


def _python(folder: Path) -> EngineSetup:
    (folder / "doubler.py").write_text(PYTHON_SOURCE, encoding="utf-8")
    return EngineSetup(card=card(format="python", python_class="doubler.py:Doubler"), folder=folder)


TINY: dict[str, tuple[EngineName, Callable[[Path], EngineSetup]]] = {
    "fake": ("fake", _fake),
    "onnxruntime": ("onnxruntime", _onnxruntime),
    "openvino": ("openvino", _openvino),
    "onnx_on_openvino": ("openvino", _onnx_on_openvino),
    "torchscript": ("torch", _torchscript),
    "torch_export": ("torch", _torch_export),
    "python": ("python", _python),
}


if find_spec("tensorrt") is not None and torch.cuda.is_available():
    TINY["tensorrt"] = ("tensorrt", _onnxruntime)
else:
    print("engine tensorrt: contract not tested: it needs the tensorrt package and a CUDA device")
if find_spec("openvino") is None:
    print("engine openvino: contract not tested, as openvino is not installed")
    TINY = {name: made for name, made in TINY.items() if made[0] != "openvino"}


def with_card(setup: EngineSetup, **changes: object) -> EngineSetup:
    return replace(setup, card=setup.card.model_copy(update=changes))


def sha256_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
