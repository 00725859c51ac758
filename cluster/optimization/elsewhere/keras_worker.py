"""Run by an interpreter with TensorFlow: a Keras file or a SavedModel as ONNX, with its answers.

    python keras_worker.py SOURCE TARGET.onnx CHECK.npz

CHECK.npz gets random inputs (`input_N`) and what TensorFlow answers (`output_N`). Prints one JSON
object. Imports nothing of Squadron's. Keras' safe mode refuses code inside the file.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np
import tensorflow as tf
import tf2onnx

ROWS = 2
FREE_SIZE = 16
OPSET = 17


def main() -> None:
    source, target, check = sys.argv[1:4]
    call, specs = saved_model(source) if os.path.isdir(source) else keras_model(source)
    function = tf.function(call, input_signature=specs)
    tf2onnx.convert.from_function(function, input_signature=specs, opset=OPSET, output_path=target)
    draw = np.random.default_rng(0)
    given = [random_like(spec, draw) for spec in specs]
    answers = tf.nest.flatten(function(*(tf.constant(each) for each in given)))
    arrays = {f"input_{i}": each for i, each in enumerate(given)}
    arrays.update({f"output_{i}": each.numpy() for i, each in enumerate(answers)})
    np.savez(check, **arrays)
    print(json.dumps({"tensorflow": tf.__version__, "inputs": [spec.name for spec in specs]}))


def keras_model(source: str) -> tuple[Any, list[Any]]:
    import keras

    model = keras.models.load_model(source, compile=False, safe_mode=True)
    specs = [
        tf.TensorSpec(each.shape, each.dtype, name=clean(each.name, i))
        for i, each in enumerate(tf.nest.flatten(model.inputs))
    ]

    structure = inputs_of(model)

    def call(*given: Any) -> Any:
        return model(tf.nest.pack_sequence_as(structure, list(given)), training=False)

    return call, specs


def inputs_of(model: Any) -> Any:
    """As the model is called with them: a tensor, or several in a list or by name."""
    try:
        return model.input
    except AttributeError:
        # A Sequential model that was read from a file says that it was never called.
        return model.inputs[0] if len(model.inputs) == 1 else list(model.inputs)


def saved_model(source: str) -> tuple[Any, list[Any]]:
    loaded = tf.saved_model.load(source)
    signature = loaded.signatures["serving_default"]
    named = signature.structured_input_signature[1]
    specs = [
        tf.TensorSpec(spec.shape, spec.dtype, name=clean(name, i))
        for i, (name, spec) in enumerate(sorted(named.items()))
    ]
    names = sorted(named)

    def call(*given: Any) -> Any:
        return list(signature(**dict(zip(names, given, strict=True))).values())

    # The function must outlive this call: TensorFlow drops variables nobody holds.
    call.kept = loaded  # type: ignore[attr-defined]
    return call, specs


def random_like(spec: Any, draw: Any) -> Any:
    shape = [ROWS if i == 0 and size is None else size or FREE_SIZE
             for i, size in enumerate(spec.shape.as_list())]  # fmt: skip
    if spec.dtype.is_floating:
        return draw.normal(size=shape).astype(spec.dtype.as_numpy_dtype)
    return np.ones(shape, spec.dtype.as_numpy_dtype)


def clean(name: str, number: int) -> str:
    kept = "".join(each if each.isalnum() or each == "_" else "_" for each in name or "")
    return kept or f"input_{number}"


if __name__ == "__main__":
    main()
