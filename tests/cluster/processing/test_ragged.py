from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.config.batching.ragged import BatchInputKind, RaggedConfig
from cluster.errors import ConfigError
from cluster.processing.ragged import Ragged, describe
from cluster.tensors import Array, Datatype, Signature, TensorSpec


def spec(name: str, *shape: int, datatype: Datatype = "FP32") -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


ARTEFACT = Signature(
    inputs=(spec("x", -1), spec("ends", -1, datatype="INT32"), spec("scale", -1, 1)),
    outputs=(spec("y", -1, 2),),
)


def ragged(*inputs: str, artefact: Signature = ARTEFACT, **kinds: str) -> Ragged:
    batch_inputs = {name: {"kind": kind, "source": "x"} for name, kind in kinds.items()}
    config = {"inputs": inputs or ("x",), "batch_inputs": batch_inputs}
    return Ragged(RaggedConfig.model_validate(config), artefact)


def request(*rows: list[float]) -> dict[str, Array]:
    x = np.array(rows, np.float32).reshape(len(rows), -1)
    return {"x": x, "scale": np.full((len(rows), 1), 7, np.float32)}


def test_callers_see_rows_and_no_batch_inputs() -> None:
    seen = ragged(ends="accumulated_element_count").signature

    assert [(each.name, each.shape) for each in seen.inputs] == [
        ("x", (-1, -1)),
        ("scale", (-1, 1)),
    ]
    assert seen.outputs == ARTEFACT.outputs


def test_rows_lie_end_to_end_and_the_batch_input_says_where_each_ends() -> None:
    found = ragged(ends="accumulated_element_count").merge(
        [request([1, 2, 3]), request([4], [5]), request([])]
    )

    assert found["x"].tolist() == [1, 2, 3, 4, 5]
    assert found["ends"].tolist() == [3, 4, 5, 5]
    assert found["ends"].dtype == np.int32
    assert found["scale"].shape == (4, 1)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("element_count", [3, 1]),
        ("accumulated_element_count", [3, 4]),
        ("accumulated_element_count_with_zero", [0, 3, 4]),
        ("max_element_count_as_shape", [0, 0, 0]),
        ("item_shape", [[3], [1]]),
        ("item_shape_flatten", [3, 1]),
    ],
)
def test_each_kind_says_what_triton_says(kind: BatchInputKind, value: list[Any]) -> None:
    assert describe(kind, np.array([3, 1])).tolist() == value


@pytest.mark.parametrize(
    ("artefact", "key"),
    [
        (Signature(inputs=(spec("x", -1, 4),), outputs=(spec("y", -1),)), "inputs.x is"),
        (Signature(inputs=(spec("z", -1),), outputs=(spec("y", -1),)), "inputs.x is no input"),
        (Signature(inputs=(spec("x", -1),), outputs=(spec("y", 2),)), "y is"),
        (
            Signature(inputs=(spec("x", -1), spec("n", 4)), outputs=(spec("y", -1),)),
            "n is",
        ),
    ],
)
def test_what_does_not_fit_is_named(artefact: Signature, key: str) -> None:
    with pytest.raises(ConfigError, match=f"batching.ragged.{key}"):
        ragged(artefact=artefact)


def test_a_batch_input_that_has_another_rank_is_named() -> None:
    with pytest.raises(ConfigError, match="numbers with 2 axes for item_shape"):
        ragged(ends="item_shape")
