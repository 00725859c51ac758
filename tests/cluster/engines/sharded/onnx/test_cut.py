"""A transformer's graph: one mask, made once, that every block reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper, numpy_helper

from cluster.client.staged.backend import StagedBackend
from cluster.config.model_card import ModelCard
from cluster.config.placement import PlacementConfig
from cluster.engines.sharded.layers import layered_model
from cluster.engines.sharded.onnx.cut import cuts

WIDTH, BLOCKS = 64, 4
CARD = ModelCard.model_validate(
    {
        "name": "masked",
        "format": "onnx",
        "artefact": "model.onnx",
        "signature": {
            "inputs": [
                {"name": "ids", "datatype": "INT64", "shape": [-1, -1]},
                {"name": "mask", "datatype": "INT64", "shape": [-1, -1]},
            ],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, -1, WIDTH]}],
        },
    }
)


def masked(folder: Path) -> Path:
    """`y`: an embedding, then blocks of a product, the mask's factor and a skip. The mask is made
    of the caller's and of places counted off the shape of what the embedding gives."""
    random = np.random.default_rng(1)
    weights = [("table", random.normal(size=(40, WIDTH)))]
    weights += [(f"w{n}", random.normal(size=(WIDTH, WIDTH)) / WIDTH) for n in range(BLOCKS)]
    tensors = [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights]
    whole = {"zero": 0, "one": 1}
    tensors += [numpy_helper.from_array(np.array(v, np.int64), n) for n, v in whole.items()]
    tensors.append(numpy_helper.from_array(np.array([-1], np.int64), "last"))
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["h0"]),
        helper.make_node("Shape", ["h0"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Range", ["zero", "length", "one"], ["places"]),
        helper.make_node("Mul", ["places", "mask"], ["placed"]),
        helper.make_node("Cast", ["placed"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["cast", "last"], ["factor"]),
    ]
    for n in range(BLOCKS):
        nodes += [
            helper.make_node("MatMul", [f"h{n}", f"w{n}"], [f"p{n}"]),
            helper.make_node("Mul", [f"p{n}", "factor"], [f"m{n}"]),
            helper.make_node("Add", [f"h{n}", f"m{n}"], ["y" if n == BLOCKS - 1 else f"h{n + 1}"]),
        ]
    shape = ["batch", "length"]
    graph = helper.make_graph(
        nodes,
        "masked",
        [helper.make_tensor_value_info(n, TensorProto.INT64, shape) for n in ("ids", "mask")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*shape, WIDTH])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    file = folder / "model.onnx"
    onnx.save(model, str(file))
    return file


def test_a_mask_leaves_the_places_between_blocks_and_is_made_again_after_them(
    tmp_path: Path,
) -> None:
    points = cuts(onnx.load(str(masked(tmp_path))).graph)

    assert [point.tensor for point in points] == ["h0", "h1", "h2", "h3"]
    # The shape is counted off what the first stage alone has.
    assert [(p.sizes, p.rides) for p in points[1:]] == [(("shape",), ("mask",))] * 3


@pytest.mark.parametrize("shards", [2, 4])
def test_the_stages_are_balanced_and_compute_what_the_whole_graph_does(
    shards: int, tmp_path: Path
) -> None:
    file = masked(tmp_path)
    random = np.random.default_rng(2)
    given = {"ids": random.integers(0, 40, (3, 5)), "mask": random.integers(0, 2, (3, 5))}
    (wanted,) = ort.InferenceSession(str(file)).run(["y"], given)
    block = WIDTH * WIDTH * 4
    held = layered_model(CARD, tmp_path).layer_bytes
    backend = StagedBackend(CARD, tmp_path, PlacementConfig(strategy="pipeline", shards=shards))
    try:
        assert_array_equal(backend.infer(given, ())["y"], wanted)
        runs = [shard.layers for shard in backend.layout.shards]
    finally:
        backend.close()

    assert max(sum(held[run.start : run.stop]) for run in runs) < (BLOCKS // shards + 1) * block
