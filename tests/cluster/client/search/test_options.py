"""Every option of `optimize` acts, or is told as ignored with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.client.search.asked import Plan
from cluster.client.search.options import OPTIONS, plan
from cluster.errors import ConfigError
from cluster.optimization.search.gpu_recipes import gpu_recipes_of

OF_THE_ISSUE: dict[str, Any] = {
    "precision": "int8",
    "batch_size": 4,
    "sequence_length": 32,
    "enable_kernel_fusion": True,
    "enable_graph_optimization": True,
    "enable_memory_optimization": True,
    "use_tensorrt": True,
    "use_cudnn": True,
    "gpu_architecture": "ampere",
    "enable_tensor_cores": True,
    "num_gpus": 2,
    "parallelism": "data",
    "use_mkldnn": False,
    "num_threads": 2,
    "enable_vectorization": True,
    "cpu_architecture": "avx512",
    "target_platform": "android",
    "max_model_size_mb": 5,
    "target_latency_ms": 10,
    "enable_quantization": True,
}
OF_OURS: dict[str, Any] = {"target_p99_ms": 20}
OF_TRAINING: dict[str, Any] = {"prune_ratio": 0.4, "rank_energy": 0.9, "training_steps": 7}


def made(
    options: dict[str, Any], target: str = "latency", device: str = "cpu", level: Any = "basic"
) -> Plan:
    return plan(target=target, target_device=device, level=level, options=options, threads=1)


def names(found: Plan) -> set[str]:
    return {recipe.name for recipe in found.recipes}


def test_the_options_are_those_that_were_promised() -> None:
    assert set(OPTIONS) == {*OF_THE_ISSUE, *OF_OURS, *OF_TRAINING}


def test_how_far_weights_are_changed_reaches_the_recipes() -> None:
    found = made(OF_TRAINING, level="max").tuning

    assert (found.prune_ratio, found.rank_energy, found.schedule.steps) == (0.4, 0.9, 7)
    with pytest.raises(ConfigError, match=r"prune_ratio is 1\.5"):
        made({"prune_ratio": 1.5})


@pytest.mark.parametrize("key", [*OF_THE_ISSUE, *OF_TRAINING])
def test_each_option_acts_or_is_ignored_with_a_reason(key: str) -> None:
    found = made({key: {**OF_THE_ISSUE, **OF_TRAINING}[key]})

    assert (key in found.acts) != (key in found.ignored)
    assert len({**found.acts, **found.ignored}[key]) > 10


def test_an_unknown_option_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"no option 'precison'.*precision") as raised:
        made({"precison": "int8"})

    assert raised.value.details["key"] == "options.precison"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "fp8"}, "allowed: fp32, fp16, bf16, int8, dynamic"),
        ({"batch_size": 0}, "above 0"),
        ({"batch_size": 1.5}, "whole number"),
        ({"num_threads": True}, "above 0"),
        ({"enable_quantization": "yes"}, "True, False"),
        ({"target_platform": "symbian"}, "android, ios"),
        ({"max_model_size_mb": -1}, "above 0"),
    ],
)
def test_wrong_values_name_the_option_and_what_is_allowed(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        made(options)

    assert next(iter(options)) in raised.value.message


def test_precision_leaves_its_own_recipes_only() -> None:
    assert {recipe.precision for recipe in made({"precision": "fp32"}).recipes} == {"fp32"}
    assert all("dynamic" in name for name in names(made({"precision": "dynamic"})))
    assert {recipe.precision for recipe in made({"precision": "bf16"}).recipes} == {"bf16"}


def test_without_quantisation_no_integer_is_left() -> None:
    found = made({"enable_quantization": False}, level="max")

    assert {recipe.precision for recipe in found.recipes} == {"fp32", "bf16"}


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="no recipe is left"):
        made({"enable_quantization": False, "precision": "int8"})


def test_fusion_switched_off_leaves_out_the_fused_graphs() -> None:
    assert "onnxruntime-fp32-fused" in names(made({}))
    assert "onnxruntime-fp32-fused" not in names(made({"enable_kernel_fusion": False}))


def test_numbers_reach_the_plan() -> None:
    found = made({"batch_size": 4, "num_threads": 2, "target_latency_ms": 10, "use_mkldnn": False})

    assert (found.batch_size, found.threads, found.max_latency_ms) == (4, 2, 10.0)
    assert not found.uses_mkldnn
    assert made({"target_p99_ms": 20}).max_p99_ms == 20
    assert made({"max_model_size_mb": 5}).max_size_bytes == 5_000_000
    assert made({}, target="throughput").batch_size == 8


@pytest.mark.parametrize("device", ["cuda", "multi_gpu"])
def test_a_gpu_target_without_a_gpu_says_what_is_allowed(device: str) -> None:
    with pytest.raises(ConfigError, match="Allowed here: cpu"):
        made({}, device=device)


def test_phones_get_what_onnxruntime_can_read() -> None:
    found = made({"target_platform": "ios"}, device="mobile", level="max")

    assert found.is_for_phones
    assert {recipe.format for recipe in found.recipes} == {"onnx"}
    assert "ios" in found.acts["target_platform"]


@pytest.mark.parametrize("device", ["cuda", "multi_gpu"])
def test_a_gpu_that_is_not_here_is_refused_with_what_is(device: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ConfigError, match=f"{device}: this machine has 0 CUDA devices"):
        made({}, device=device)


def on_gpus(num_gpus: int, options: dict[str, Any]) -> Plan:
    """What `plan` makes of the options on a machine with GPUs, from its parts."""
    found = Plan(recipes=gpu_recipes_of("max"), device="cuda", num_gpus=num_gpus)
    for key, apply in OPTIONS.items():
        if key in options:
            apply(found, key, options[key])
    return found


def test_on_a_gpu_its_options_choose_recipes() -> None:
    every = names(on_gpus(1, {}))

    assert all("tensorrt" in each for each in names(on_gpus(1, {"use_tensorrt": True})))
    assert names(on_gpus(1, {"use_tensorrt": False})) == {e for e in every if "tensorrt" not in e}
    assert names(on_gpus(1, {"enable_tensor_cores": False})) == {
        "onnxruntime-cuda-fp32", "tensorrt-fp32", "inductor-cuda-fp32",
    }  # fmt: skip
    assert names(on_gpus(1, {"precision": "fp16"})) == {
        "onnxruntime-cuda-fp16", "onnxruntime-tensorrt-fp16", "tensorrt-fp16",
    }  # fmt: skip
    assert "multi_gpu" in on_gpus(1, {"parallelism": "data"}).ignored["parallelism"]


@pytest.mark.parametrize(
    ("parallelism", "section"),
    [
        ("data", "replicas: 4, device: cuda"),
        ("model", "placement: {strategy: layer, shards: 4}, device: cuda"),
        ("pipeline", "placement: {strategy: pipeline, shards: 4}, device: cuda"),
    ],
)
def test_several_gpus_become_the_section_that_the_planner_places(
    parallelism: str, section: str
) -> None:
    found = on_gpus(4, {"num_gpus": 4, "parallelism": parallelism})

    assert section in found.acts["parallelism"]
    assert "4 devices" in found.acts["num_gpus"]


@pytest.mark.parametrize("key", [*OF_THE_ISSUE, *OF_TRAINING])
def test_on_a_gpu_each_option_acts_or_is_ignored_with_a_reason_too(key: str) -> None:
    found = on_gpus(1, {key: {**OF_THE_ISSUE, **OF_TRAINING}[key]})

    assert (key in found.acts) != (key in found.ignored)
    # A variant for the processor is no answer there.
    assert {recipe.device for recipe in found.recipes} == {"cuda"}


@pytest.mark.parametrize(
    "key", ["enable_memory_optimization", "enable_kernel_fusion", "use_mkldnn"]
)
def test_what_is_done_on_a_processor_alone_is_not_claimed_of_a_gpu(key: str) -> None:
    assert key in on_gpus(1, {key: True}).ignored


def test_integers_asked_for_and_left_out_by_the_precision_are_told() -> None:
    found = made({"enable_quantization": True, "precision": "fp32"})

    assert "enable_quantization" not in found.acts
    assert "fp32" in found.ignored["enable_quantization"]


@pytest.mark.parametrize("key", ["max_model_size_mb", "target_latency_ms", "batch_size"])
def test_no_end_is_no_number(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} is inf"):
        made({key: float("inf")})
