"""The engines on a real GPU: the same numbers as on the CPU. Skips, and says why, without CUDA."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from cluster.engines.table import make_engine
from tests.contracts.tiny_models import TINY

HAS_CUDA = torch.cuda.is_available()
ORT_HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def skip_without_cuda(name: str) -> None:
    if not HAS_CUDA:
        pytest.skip("torch sees no CUDA device on this machine")
    if name == "onnxruntime" and not ORT_HAS_CUDA:
        pytest.skip("this onnxruntime was built without CUDA: install onnxruntime-gpu")


@pytest.mark.parametrize("name", ["torchscript", "torch_export", "onnxruntime"])
def test_an_engine_on_cuda_computes_what_it_computes_on_the_cpu(name: str, tmp_path: Path) -> None:
    skip_without_cuda(name)
    engine_name, make_setup = TINY[name]
    setup = make_setup(tmp_path)
    x = np.arange(32, dtype=np.float32).reshape(8, 4)
    found = {}
    for device in ("cpu", "cuda"):
        engine = make_engine(engine_name, replace(setup, device=device))
        engine.load()
        engine.warm_up((1, 8))
        found[device] = engine.infer({"x": x})["y"]
        assert engine.facts.device.startswith(device)
        engine.close()

    assert np.array_equal(found["cpu"], 2 * x + 1)
    assert np.abs(found["cpu"] - found["cuda"]).max() < 1e-5


@pytest.mark.parametrize("name", ["torchscript", "onnxruntime"])
def test_device_auto_finds_the_gpu(name: str, tmp_path: Path) -> None:
    skip_without_cuda(name)
    engine_name, make_setup = TINY[name]
    engine = make_engine(engine_name, replace(make_setup(tmp_path), device="auto"))
    engine.load()

    assert engine.facts.device.startswith("cuda")
    engine.close()
