from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.config.store import ModelStore
from cluster.optimization.fetch import fetch

ort = pytest.importorskip("onnxruntime")


def computed(store: Path, name: str, **inputs: Any) -> list[Any]:
    fetch(store, (name,))
    session = ort.InferenceSession(str(ModelStore(store).folder(name) / "model.onnx"))
    return list(session.run(None, inputs))


@pytest.mark.parametrize(("name", "dtype"), [("simple", np.int32), ("simple_int8", np.int8)])
def test_simple_models_give_sum_and_difference(tmp_path: Path, name: str, dtype: Any) -> None:
    a, b = np.arange(16, dtype=dtype)[None], np.full((1, 16), 3, dtype)

    total, difference = computed(tmp_path, name, INPUT0=a, INPUT1=b)

    np.testing.assert_array_equal(total, a + b)
    np.testing.assert_array_equal(difference, a - b)
    assert total.dtype == dtype


def test_the_string_model_computes_with_decimal_text(tmp_path: Path) -> None:
    a, b = np.array([["40"] * 16], object), np.array([["-2"] * 16], object)

    total, difference = computed(tmp_path, "simple_string", INPUT0=a, INPUT1=b)

    assert (total[0, 0], difference[0, 15]) == ("38", "42")


def test_sequence_models_show_the_controls_they_were_given(tmp_path: Path) -> None:
    def one(value: int, dtype: Any = np.int32) -> Any:
        return np.array([[value]], dtype)

    middle = {"INPUT": one(7), "START": one(0), "READY": one(1)}
    ends = {"INPUT": one(7), "START": one(1), "READY": one(1)}

    assert computed(tmp_path, "simple_sequence", **middle)[0] == 7
    assert computed(tmp_path, "simple_sequence", **ends)[0] == 8
    more = {"END": one(1), "CORRID": one(1001, np.uint64)}
    assert computed(tmp_path, "simple_dyna_sequence", **ends, **more)[0] == 1009
    kept = {"INPUT": one(7), "TOTAL_IN": one(20), "END": one(1)}
    text = {"CORRID": np.array([["1002"]], object)}
    found = computed(tmp_path, "simple_string_dyna_sequence", **kept, **text)
    assert [int(each.item()) for each in found] == [1029, 1029]


def test_the_card_says_what_the_graph_takes_and_gives(tmp_path: Path) -> None:
    fetch(tmp_path, ("simple_string",))

    card = ModelStore(tmp_path).verify("simple_string")

    signature = card.raw_signature()
    assert [(t.name, t.datatype, t.shape) for t in signature.inputs] == [
        ("INPUT0", "BYTES", (-1, 16)),
        ("INPUT1", "BYTES", (-1, 16)),
    ]
    assert [t.name for t in signature.outputs] == ["OUTPUT0", "OUTPUT1"]
