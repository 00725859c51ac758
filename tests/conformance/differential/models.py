"""The models that both servers serve, written as a Triton repository and as a store of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.config.model_card import ModelCard, SignatureCard, TensorCard
from cluster.config.store import new_version, seal
from cluster.optimization.fetch import fetch
from cluster.tensors import Datatype

OPERATIONS = Path(__file__).with_name("operations.py")
MAX_BATCH_SIZE = 8

_TRITON = """

import triton_python_backend_utils as backend
import json


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self._operation = OPERATIONS[config["parameters"]["operation"]["string_value"]]

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            outputs = self._operation(inputs)
        except Exception as error:
            return backend.InferenceResponse(error=backend.TritonError(str(error)))
        wanted = request.requested_output_names()
        return backend.InferenceResponse(
            [backend.Tensor(name, array) for name, array in outputs.items() if name in wanted]
        )
"""
_OURS = """


class Model:
    def load(self, context):
        self._operation = OPERATIONS[context.options["operation"]]

    def warm_up(self, batch_sizes):
        pass  # Triton runs no model before it is asked either, and one of them always fails

    def infer(self, inputs):
        return self._operation(inputs)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Shapes: without the batch dimension. `is_batched`: up to 8 rows, else none."""

    name: str
    operation: str
    inputs: tuple[tuple[str, Datatype, tuple[int, ...]], ...]
    outputs: tuple[tuple[str, Datatype, tuple[int, ...]], ...]
    is_batched: bool = True


EVERY: tuple[Datatype, ...] = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "BYTES",
)  # fmt: skip
"""Without BF16: the Python backend of Triton 2.51 has no way to read it."""


def _pair(datatype: Datatype, names: tuple[str, str]) -> tuple[Any, ...]:
    return tuple((name, datatype, (16,)) for name in names)


def _same(name: str, datatype: Datatype, *shape: int, is_batched: bool = True) -> Model:
    return Model(
        name=name,
        operation="identity",
        inputs=(("in", datatype, shape),),
        outputs=(("out", datatype, shape),),
        is_batched=is_batched,
    )


_IN, _OUT = ("INPUT0", "INPUT1"), ("OUTPUT0", "OUTPUT1")
MODELS = (
    Model(
        name="simple",
        operation="sum_and_difference",
        inputs=_pair("INT32", _IN),
        outputs=_pair("INT32", _OUT),
    ),
    Model(
        name="simple_string",
        operation="text_sum_and_difference",
        inputs=_pair("BYTES", _IN),
        outputs=_pair("BYTES", _OUT),
    ),
    Model(
        name="every",
        operation="identity",
        inputs=tuple((f"in_{datatype}", datatype, (2,)) for datatype in EVERY),
        outputs=tuple((f"out_{datatype}", datatype, (2,)) for datatype in EVERY),
    ),
    _same("text", "BYTES", -1),
    _same("scores", "FP32", 4),
    _same("row", "FP32", -1),
    _same("grid", "FP32", -1, -1),
    _same("whole", "FP32", 2, 2, is_batched=False),
    Model(
        name="fails",
        operation="failure",
        inputs=(("in", "FP32", (1,)),),
        outputs=(("out", "FP32", (1,)),),
    ),
)


def write_triton_repository(folder: Path) -> None:
    for model in MODELS:
        version = folder / model.name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(OPERATIONS.read_text() + _TRITON)
        (version.parent / "config.pbtxt").write_text(_config_pbtxt(model))


def _config_pbtxt(model: Model) -> str:
    def tensors(specs: tuple[tuple[str, Datatype, tuple[int, ...]], ...]) -> str:
        entries = (
            f'{{name: "{name}" data_type: {_type_name(datatype)} dims: {list(shape)}}}'
            for name, datatype, shape in specs
        )
        return f"[{', '.join(entries)}]"

    return (
        f'name: "{model.name}"\n'
        'backend: "python"\n'
        f"max_batch_size: {MAX_BATCH_SIZE if model.is_batched else 0}\n"
        f"input {tensors(model.inputs)}\n"
        f"output {tensors(model.outputs)}\n"
        f'parameters {{key: "operation" value {{string_value: "{model.operation}"}}}}\n'
    )


def _type_name(datatype: Datatype) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def write_squadron(folder: Path) -> Path:
    """A store in `folder` and the Serve configuration file that serves it."""
    store = folder / "store"
    # This one by ONNX Runtime inside the door, the others by Python processes: both are compared.
    fetch(store, ("simple",))
    for model in MODELS[1:]:
        with new_version(store, model.name, "1") as version:
            (version / "model.py").write_text(OPERATIONS.read_text() + _OURS)
            seal(version, _card(model))
    variants = {
        model.name: {
            "source": model.name,
            "device": "cpu",
            "options": {} if model.name == "simple" else {"operation": model.operation},
            "batching": {"max_batch_size": MAX_BATCH_SIZE},
        }
        for model in MODELS
    }
    args = {
        "server": {"name": "triton", "shared_memory": {"enabled": True, "prefixes": ["/"]}},
        "store": {"path": str(store)},
        "variants": variants,
    }
    content = {
        "http_options": {"host": "127.0.0.1", "port": 8500},
        "applications": [
            {
                "name": "squadron",
                "route_prefix": "/",
                "import_path": "actors.app:build",
                "args": args,
            }
        ],
    }
    file = folder / "differential.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def _card(model: Model) -> ModelCard:
    batch = (-1,) if model.is_batched else ()

    def cards(specs: tuple[tuple[str, Datatype, tuple[int, ...]], ...]) -> list[TensorCard]:
        return [
            TensorCard(name=name, datatype=datatype, shape=[*batch, *shape])
            for name, datatype, shape in specs
        ]

    return ModelCard(
        name=model.name,
        format="python",
        python_class="model.py:Model",
        batched=model.is_batched,
        signature=SignatureCard(inputs=cards(model.inputs), outputs=cards(model.outputs)),
    )
