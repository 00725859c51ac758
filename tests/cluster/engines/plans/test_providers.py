"""What ONNX Runtime's GPU providers are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.device import parse_device
from cluster.engines.onnxruntime import choose_providers
from cluster.engines.plans.providers import CUDA, TENSORRT, provider_options
from cluster.errors import ConfigError

ALL = (TENSORRT, CUDA, "CPUExecutionProvider")


def test_precision_says_what_tensorrt_may_compute_in_and_whether_cuda_may_use_tf32() -> None:
    found = provider_options({"precision": "fp16"}, cache_root=Path("/c"))

    assert found[CUDA]["use_tf32"] == "1"
    assert found[TENSORRT]["trt_fp16_enable"] == "True"
    assert found[TENSORRT]["trt_engine_cache_path"] == "/c/onnxruntime-tensorrt/fp16"
    assert "trt_int8_enable" not in found[TENSORRT]
    plain = provider_options({})
    assert plain[CUDA]["use_tf32"] == "0"
    assert "trt_fp16_enable" not in plain[TENSORRT]
    assert provider_options({"precision": "int8"})[TENSORRT]["trt_fp16_enable"] == "True"
    assert provider_options({"cudnn_search": "heuristic"})[CUDA]["cudnn_conv_algo_search"] == (
        "HEURISTIC"
    )


def test_tensorrt_comes_before_cuda_only_when_asked_for() -> None:
    told = provider_options({"precision": "tf32"})

    plain = choose_providers(parse_device("cuda:1"), ALL, told=told)
    first = choose_providers(parse_device("cuda"), ALL, told=told, wants_tensorrt=True)

    assert [name for name, _ in plain] == [CUDA, "CPUExecutionProvider"]
    assert plain[0][1] == {**told[CUDA], "device_id": "1"}
    assert [name for name, _ in first] == [TENSORRT, CUDA, "CPUExecutionProvider"]
    assert first[0][1] == told[TENSORRT]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "fp8"}, "precision is 'fp8'; allowed: fp32, tf32, fp16, bf16, int8"),
        ({"provider": "rocm"}, "provider is 'rocm'; allowed: auto, tensorrt"),
        ({"cudnn_search": "best"}, "cudnn_search is 'best'; allowed: exhaustive"),
    ],
)
def test_other_values_are_refused(options: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        provider_options(options)
