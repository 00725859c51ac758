"""What the models of the differential test compute. Copied into both servers' model files."""

from __future__ import annotations

from typing import Any

import numpy as np

Arrays = dict[str, Any]


def sum_and_difference(inputs: Arrays) -> Arrays:
    a, b = inputs["INPUT0"], inputs["INPUT1"]
    return {"OUTPUT0": a + b, "OUTPUT1": a - b}


def text_sum_and_difference(inputs: Arrays) -> Arrays:
    a, b = (inputs[name].astype(np.int64) for name in ("INPUT0", "INPUT1"))
    return {
        name: np.array([str(number).encode() for number in numbers.flat], object).reshape(a.shape)
        for name, numbers in (("OUTPUT0", a + b), ("OUTPUT1", a - b))
    }


def identity(inputs: Arrays) -> Arrays:
    return {name.replace("in", "out", 1): array for name, array in inputs.items()}


def failure(inputs: Arrays) -> Arrays:
    raise ValueError("the model says no")


OPERATIONS = {
    operation.__name__: operation
    for operation in (sum_and_difference, text_sum_and_difference, identity, failure)
}
