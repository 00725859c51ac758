from __future__ import annotations

import pytest

from cluster.protocols.v2_model import (
    ModelDescription,
    model_config,
    model_metadata,
    server_metadata,
    type_name,
)
from cluster.tensors import DATATYPES, Datatype, Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(TensorSpec(name="image", datatype="BYTES", shape=(-1, 1)),),
    outputs=(TensorSpec(name="probs", datatype="FP32", shape=(-1, 1000)),),
)


def description(max_batch_size: int) -> ModelDescription:
    return ModelDescription(
        name="m",
        versions=("3",),
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        signature=SIGNATURE,
        max_batch_size=max_batch_size,
        preferred_batch_sizes=(4, 8),
        max_queue_delay_us=500,
        num_instances=2,
        kind="KIND_CPU",
        parameters={"variants": "a,b"},
    )


def test_the_server_tells_its_name_version_and_extensions() -> None:
    assert server_metadata("triton", "1.0", ("classification",)) == {
        "name": "triton",
        "version": "1.0",
        "extensions": ["classification"],
    }


def test_metadata_shapes_hold_the_batch_dimension() -> None:
    assert model_metadata(description(8)) == {
        "name": "m",
        "versions": ["3"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]}],
        "outputs": [{"name": "probs", "datatype": "FP32", "shape": [-1, 1000]}],
    }


def test_configuration_dimensions_are_those_of_one_row() -> None:
    assert model_config(description(8)) == {
        "name": "m",
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 8,
        "input": [{"name": "image", "data_type": "TYPE_STRING", "dims": [1]}],
        "output": [{"name": "probs", "data_type": "TYPE_FP32", "dims": [1000]}],
        "instance_group": [{"name": "m", "kind": "KIND_CPU", "count": 2}],
        "parameters": {"variants": {"string_value": "a,b"}},
        "dynamic_batching": {
            "preferred_batch_size": [4, 8],
            "max_queue_delay_microseconds": 500,
        },
    }


def test_a_model_that_is_not_batched_has_whole_dimensions_and_no_batching_block() -> None:
    config = model_config(description(0))

    assert config["input"] == [{"name": "image", "data_type": "TYPE_STRING", "dims": [-1, 1]}]
    assert "dynamic_batching" not in config


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_has_a_configuration_name(datatype: Datatype) -> None:
    assert type_name(datatype) == ("TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}")
