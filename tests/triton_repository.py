"""A Triton model repository of tiny ONNX models, as an operator would have written it.

`simple` adds and subtracts (dynamic batching, priorities, two instances, warm-up); `scaler` version
n multiplies by n; `picker` has class names; `pipeline` is scaler, then picker; `bare` has no
configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

Io = tuple[str, int, list[str | int]]
COLOURS = ("red", "green", "blue")

SIMPLE = """
name: "simple"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
]
output [
  { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
]
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 500
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy { max_queue_size: 64 }
  priority_queue_policy {
    key: 1
    value { timeout_action: DELAY default_timeout_microseconds: 2000000 max_queue_size: 32 }
  }
}
model_warmup [ {
  name: "zeros" batch_size: 1
  inputs { key: "INPUT0" value { data_type: TYPE_INT32 dims: [ 16 ] zero_data: true } }
  inputs { key: "INPUT1" value { data_type: TYPE_INT32 dims: [ 16 ] zero_data: true } }
} ]
"""
SCALER = """
platform: "onnxruntime_onnx"
max_batch_size: 4
version_policy { all {} }
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]
dynamic_batching { }
"""
PICKER = """
backend: "onnxruntime"
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "scores" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "colours.txt" } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
optimization { graph { level: 1 } }
"""
PIPELINE = """
platform: "ensemble"
max_batch_size: 4
input [ { name: "raw" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "picked" data_type: TYPE_FP32 dims: [ 3 ] } ]
ensemble_scheduling { step [
  {
    model_name: "scaler" model_version: -1
    input_map { key: "x" value: "raw" }
    output_map { key: "y" value: "scaled" }
  },
  {
    model_name: "picker" model_version: -1
    input_map { key: "x" value: "scaled" }
    output_map { key: "scores" value: "picked" }
  }
] }
"""

# Nothing is said of the controls under `input`: they are the server's.
STEPS = """
name: "steps"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
instance_group [ { count: 2 kind: KIND_CPU } ]
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  oldest { max_candidate_sequences: 64 max_queue_delay_microseconds: 1000 }
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 10 ] } ] },
    { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] } ] },
    { name: "END" control [ { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } ] },
    { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }
  ]
}
"""


def write_sequence_model(root: Path) -> Path:
    """`steps`: OUTPUT = (INPUT + START + END * CORRID) * READY; START is 10, the others 1."""
    row: list[str | int] = ["batch", 1]
    numbers = ("INPUT", "START", "READY", "END")
    write_model(
        root / "steps/1/model.onnx",
        [
            helper.make_node("Cast", ["CORRID"], ["id"], to=TensorProto.INT32),
            helper.make_node("Mul", ["END", "id"], ["last"]),
            helper.make_node("Add", ["INPUT", "START"], ["first"]),
            helper.make_node("Add", ["first", "last"], ["sum"]),
            helper.make_node("Mul", ["sum", "READY"], ["OUTPUT"]),
        ],
        [
            *((name, TensorProto.INT32, row) for name in numbers),
            ("CORRID", TensorProto.UINT64, row),
        ],
        [("OUTPUT", TensorProto.INT32, row)],
    )
    (root / "steps/config.pbtxt").write_text(STEPS)
    return root


def write_repository(root: Path) -> Path:
    add_sub = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    inputs = [("INPUT0", TensorProto.INT32), ("INPUT1", TensorProto.INT32)]
    outputs = [("OUTPUT0", TensorProto.INT32), ("OUTPUT1", TensorProto.INT32)]
    write_model(
        root / "simple/1/model.onnx",
        add_sub,
        [(name, kind, ["batch", 16]) for name, kind in inputs],
        [(name, kind, ["batch", 16]) for name, kind in outputs],
    )
    for version in (1, 2):
        write_scaler(root / f"scaler/{version}/model.onnx", factor=float(version))
    row: list[str | int] = ["batch", 3]
    write_model(
        root / "picker/1/model.onnx",
        [helper.make_node("Identity", ["x"], ["scores"])],
        [("x", TensorProto.FLOAT, row)],
        [("scores", TensorProto.FLOAT, row)],
    )
    (root / "picker/colours.txt").write_text("\n".join(COLOURS) + "\n")
    write_scaler(root / "bare/1/model.onnx", factor=10.0)
    (root / "pipeline/1").mkdir(parents=True)
    texts = {"simple": SIMPLE, "scaler": SCALER, "picker": PICKER, "pipeline": PIPELINE}
    for name, text in texts.items():
        (root / name / "config.pbtxt").write_text(text)
    return root


def write_scaler(file: Path, *, factor: float) -> Path:
    """`y = factor * x` on [-1, 3]."""
    constant = helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])
    row: list[str | int] = ["batch", 3]
    return write_model(
        file,
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [("x", TensorProto.FLOAT, row)],
        [("y", TensorProto.FLOAT, row)],
        [constant],
    )


SUMS = """
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true } ]
output [ { name: "sum" data_type: TYPE_FP32 dims: [ 1 ] } ]
batch_input [ {
  kind: BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO
  target_name: "ends" data_type: TYPE_INT64 source_input: "x"
} ]
dynamic_batching { }
"""


def write_sums(file: Path) -> Path:
    """`sum` of the elements of `x` between one of `ends` and the next: a ragged batch's items."""
    int64 = TensorProto.INT64
    constants = [
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
        helper.make_tensor("axis", int64, [], [0]),
        helper.make_tensor("first", int64, [1], [0]),
        helper.make_tensor("second", int64, [1], [1]),
        helper.make_tensor("last", int64, [1], [-1]),
        helper.make_tensor("end", int64, [1], [2**62]),
        helper.make_tensor("row", int64, [2], [-1, 1]),
    ]
    nodes = [
        helper.make_node("Concat", ["zero", "x"], ["all"], axis=0),
        helper.make_node("CumSum", ["all", "axis"], ["running"]),
        helper.make_node("Gather", ["running", "ends"], ["at"]),
        helper.make_node("Slice", ["at", "second", "end"], ["to"]),
        helper.make_node("Slice", ["at", "first", "last"], ["from"]),
        helper.make_node("Sub", ["to", "from"], ["flat"]),
        helper.make_node("Reshape", ["flat", "row"], ["sum"]),
    ]
    return write_model(
        file,
        nodes,
        [("x", TensorProto.FLOAT, ["elements"]), ("ends", int64, ["bounds"])],
        [("sum", TensorProto.FLOAT, ["items", 1])],
        constants,
    )


def write_openvino_model(root: Path, text: str = "", *, factor: float = 3.0) -> Path:
    """`intel`: y = factor * x on [-1, 3] in OpenVINO's own format; `text` is its configuration."""
    import openvino

    folder = root / "intel/1"
    graph = write_scaler(folder / "graph.onnx", factor=factor)
    openvino.save_model(openvino.convert_model(str(graph)), str(folder / "model.xml"))
    graph.unlink()
    if text:
        (root / "intel/config.pbtxt").write_text(text)
    return root


def write_model(
    file: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Io],
    outputs: Sequence[Io],
    constants: Sequence[onnx.TensorProto] = (),
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        initializer=list(constants),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(file))
    return file
