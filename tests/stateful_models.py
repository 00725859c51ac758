"""Models of sequences and of several responses, written into a store: Triton's examples and some
more whose answers show what they were given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from onnx import TensorProto, helper, save

ENDLESS = '''
import os
from pathlib import Path

import numpy as np


class Endless:
    """Counts for ever. Each response has `size` bytes. What becomes of it stands in the file that
    the request names: a digit a response made, `closed` when it was ended, then the process id."""

    def load(self, context):
        pass

    def stream(self, inputs, parameters):
        notes = Path(str(parameters.get("notes", os.devnull)))
        size = int(inputs["SIZE"][0])
        count = 0
        try:
            while count < int(parameters.get("stop", 2**40)):
                with notes.open("a") as file:
                    file.write("1")
                yield {
                    "COUNT": np.array([count], np.int32),
                    "PID": np.array([os.getpid()], np.int32),
                    "FILL": np.array([b"x" * size], object),
                }
                count += 1
        finally:
            with notes.open("a") as file:
                file.write("closed")
'''

SHOUT = """
import numpy as np


class Shout:
    def load(self, context):
        pass

    def infer(self, inputs):
        texts = [text.upper() for text in inputs["text_input"].flat]
        return {"text_output": np.array(texts, object).reshape(inputs["text_input"].shape)}
"""


def _tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _card(name: str, inputs: list[Any], outputs: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "signature": {"inputs": inputs, "outputs": outputs}, **more}


def _ints(*names: str) -> list[dict[str, Any]]:
    return [_tensor(name, "INT32", -1, 1) for name in names]


CARDS: dict[str, dict[str, Any]] = {
    # OUTPUT = (INPUT + START) * READY
    "simple_sequence": _card(
        "simple_sequence",
        _ints("INPUT", "START", "READY"),
        _ints("OUTPUT"),
        format="onnx",
        artefact="model.onnx",
    ),
    # OUTPUT = (INPUT + START + END * CORRID) * READY
    "simple_dyna_sequence": _card(
        "simple_dyna_sequence",
        [*_ints("INPUT", "START", "END", "READY"), _tensor("CORRID", "UINT64", -1, 1)],
        _ints("OUTPUT"),
        format="onnx",
        artefact="model.onnx",
    ),
    # OUTPUT = TOTAL' = INPUT + TOTAL; the server carries TOTAL.
    "running_sum": _card(
        "running_sum",
        _ints("INPUT", "TOTAL_IN"),
        _ints("OUTPUT", "TOTAL_OUT"),
        format="onnx",
        artefact="model.onnx",
    ),
    "repeat_int32": _card(
        "repeat_int32",
        [_tensor("IN", "INT32", -1), _tensor("DELAY", "UINT32", -1), _tensor("WAIT", "UINT32", 1)],
        [_tensor("OUT", "INT32", 1), _tensor("IDX", "UINT32", 1)],
        format="python",
        python_class="cluster.engines.examples.stream_examples:RepeatInt32",
        batched=False,
        decoupled=True,
    ),
    "mock_llm": _card(
        "mock_llm",
        [_tensor("PROMPT", "BYTES", -1, -1), _tensor("STREAM", "BOOL", -1, 1)],
        [_tensor("TEXT", "BYTES", -1, -1)],
        format="python",
        python_class="cluster.engines.examples.stream_examples:MockLlm",
        decoupled=True,
    ),
    "endless": _card(
        "endless",
        [_tensor("SIZE", "INT32", 1)],
        [_tensor("COUNT", "INT32", 1), _tensor("PID", "INT32", 1), _tensor("FILL", "BYTES", 1)],
        format="python",
        python_class="endless.py:Endless",
        batched=False,
        decoupled=True,
    ),
    "shout": _card(
        "shout",
        [_tensor("text_input", "BYTES", -1, 1)],
        [_tensor("text_output", "BYTES", -1, 1)],
        format="python",
        python_class="shout.py:Shout",
    ),
}

_FLAGS: dict[str, Any] = {"START": {"kind": "start"}, "READY": {"kind": "ready"}}

SEQUENCES: dict[str, dict[str, Any]] = {
    "simple_sequence": {"controls": _FLAGS},
    "simple_dyna_sequence": {
        "strategy": "oldest",
        "max_sequence_idle_us": 10_000_000,
        "max_queue_delay_us": 10_000,
        "controls": {
            **_FLAGS,
            "END": {"kind": "end"},
            "CORRID": {"kind": "corrid", "datatype": "UINT64"},
        },
    },
    "running_sum": {
        "strategy": "oldest",
        "max_sequence_idle_us": 60_000_000,
        "state": [
            {"input": "TOTAL_IN", "output": "TOTAL_OUT", "datatype": "INT32", "shape": [1]},
        ],
    },
}


FAR = {"far_sum": "running_sum", "far_endless": "endless"}
"""Models a second time: for tests that take their sockets away, as if they were elsewhere."""


def write_store(store: Path) -> None:
    for name, card in CARDS.items():
        folder = store / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.yaml").write_text(yaml.safe_dump(card))
        if card["format"] == "onnx":
            _write_onnx(name, card, folder / "model.onnx")
    (store / "endless/1/endless.py").write_text(ENDLESS)
    (store / "shout/1/shout.py").write_text(SHOUT)


def _write_onnx(name: str, card: dict[str, Any], file: Path) -> None:
    types = {"INT32": TensorProto.INT32, "UINT64": TensorProto.UINT64}

    def infos(tensors: list[dict[str, Any]]) -> list[Any]:
        return [
            helper.make_tensor_value_info(t["name"], types[t["datatype"]], ["batch", 1])
            for t in tensors
        ]

    nodes = {
        "simple_sequence": [
            helper.make_node("Add", ["INPUT", "START"], ["sum"]),
            helper.make_node("Mul", ["sum", "READY"], ["OUTPUT"]),
        ],
        "simple_dyna_sequence": [
            helper.make_node("Cast", ["CORRID"], ["id"], to=TensorProto.INT32),
            helper.make_node("Mul", ["END", "id"], ["last"]),
            helper.make_node("Add", ["INPUT", "START"], ["first"]),
            helper.make_node("Add", ["first", "last"], ["sum"]),
            helper.make_node("Mul", ["sum", "READY"], ["OUTPUT"]),
        ],
        "running_sum": [
            helper.make_node("Add", ["INPUT", "TOTAL_IN"], ["OUTPUT"]),
            helper.make_node("Identity", ["OUTPUT"], ["TOTAL_OUT"]),
        ],
    }[name]
    signature = card["signature"]
    graph = helper.make_graph(nodes, name, infos(signature["inputs"]), infos(signature["outputs"]))
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    save(model, str(file))


def serve_file(store: Path, file: Path, **replicas: int) -> None:
    """A serve config of all of them; `replicas` of those that have not one."""
    variants: dict[str, Any] = {}
    for name in (*CARDS, *FAR):
        source = FAR.get(name, name)
        variants[name] = {"source": source, "device": "cpu", "replicas": replicas.get(name, 1)}
        if source in SEQUENCES:
            variants[name]["sequences"] = SEQUENCES[source]
    content = {
        "http_options": {"host": "127.0.0.1", "port": 0},
        "applications": [
            {
                "name": "squadron",
                "route_prefix": "/",
                "import_path": "actors.app:build",
                "args": {"store": {"path": str(store)}, "variants": variants},
            }
        ],
    }
    file.write_text(yaml.safe_dump(content))
