"""The engines on a real GPU: the same numbers as on the CPU. Skips, and says why, without CUDA."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from cluster.engines.table import make_engine
from cluster.engines.torch import staged
from cluster.tensors import NUMPY_DTYPES, Datatype, TensorSpec
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


@pytest.mark.parametrize("datatype", ["FP32", "BF16", "INT64", "BOOL", "UINT16"])
def test_inputs_reach_the_gpu_from_page_locked_memory(datatype: Datatype) -> None:
    skip_without_cuda("torch")
    array = (np.arange(24).reshape(2, 3, 4) % 2).astype(NUMPY_DTYPES[datatype])
    array.flags.writeable = False  # as a view on a request's bytes is

    found = staged(array[:, ::2], TensorSpec(name="x", datatype=datatype, shape=(-1, -1, 4)))

    assert found.is_pinned()
    assert found.to("cuda", non_blocking=True).cpu().to(torch.float64).tolist() == (
        array[:, ::2].astype(np.float64).tolist()
    )


def test_batches_one_after_the_other_do_not_see_each_others_memory(tmp_path: Path) -> None:
    """Copies are asynchronous and their memory is used again."""
    skip_without_cuda("torch")
    engine_name, make_setup = TINY["torch_export"]
    engine = make_engine(engine_name, replace(make_setup(tmp_path), device="cuda"))
    engine.load()
    for value in range(200):
        x = np.full((8, 4), value, np.float32)
        assert np.array_equal(engine.infer({"x": x})["y"], 2 * x + 1)
    engine.close()


@pytest.mark.parametrize("name", ["torchscript", "onnxruntime"])
def test_device_auto_finds_the_gpu(name: str, tmp_path: Path) -> None:
    skip_without_cuda(name)
    engine_name, make_setup = TINY[name]
    engine = make_engine(engine_name, replace(make_setup(tmp_path), device="auto"))
    engine.load()

    assert engine.facts.device.startswith("cuda")
    engine.close()
