"""TensorRT on a real GPU: plans built, kept, run. Skips, and says why, where it cannot be."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.engines.engine import EngineSetup
from cluster.engines.table import make_engine
from cluster.errors import ConfigError, InvalidRequest
from tests.contracts.tiny_models import card, save_onnx

X = np.arange(32, dtype=np.float32).reshape(8, 4)


@pytest.fixture
def setup(tmp_path: Path) -> EngineSetup:
    if find_spec("tensorrt") is None:
        pytest.skip("tensorrt is not installed: pip install 'squadron-serve[gpu,tensorrt]'")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device on this machine")
    save_onnx(tmp_path / "model.onnx")
    return EngineSetup(
        card=card(format="onnx", artefact="model.onnx"),
        folder=tmp_path,
        options={"cache_dir": str(tmp_path / "cache")},
    )


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
def test_a_plan_computes_what_the_graph_says(setup: EngineSetup, precision: str) -> None:
    engine = make_engine(
        "tensorrt", replace(setup, options={**setup.options, "precision": precision})
    )
    engine.load()
    engine.warm_up((1, 8))

    np.testing.assert_allclose(engine.infer({"x": X})["y"], 2 * X + 1, rtol=1e-2)
    assert engine.facts.provider.startswith("TensorRT 10.")
    engine.close()


def test_a_second_load_takes_the_plan_from_the_cache(setup: EngineSetup) -> None:
    cache = Path(str(setup.options["cache_dir"]))
    make_engine("tensorrt", setup).load()
    (plan,) = cache.glob("??/*/model.plan")
    built_s = plan.stat().st_mtime

    make_engine("tensorrt", setup).load()

    assert [each.stat().st_mtime for each in cache.glob("??/*/model.plan")] == [built_s]
    assert list((cache / "timing").glob("*.cache"))


def test_more_rows_than_the_plan_was_built_for_are_refused(setup: EngineSetup) -> None:
    engine = make_engine("tensorrt", replace(setup, batch_sizes=(4,)))
    engine.load()

    with pytest.raises(InvalidRequest, match=r"built for \[1, 4\] to \[4, 4\]"):
        engine.infer({"x": X})
    np.testing.assert_allclose(engine.infer({"x": X[:4]})["y"], 2 * X[:4] + 1)
    engine.close()


def test_an_operator_that_tensorrt_has_not_is_named(setup: EngineSetup) -> None:
    save_onnx(setup.folder / "model.onnx", node="NoSuchOperator")

    with pytest.raises(ConfigError, match="NoSuchOperator"):
        make_engine("tensorrt", setup).load()


def test_int8_of_a_graph_without_quantisation_is_refused(setup: EngineSetup) -> None:
    with pytest.raises(ConfigError, match="QDQ"):
        make_engine(
            "tensorrt", replace(setup, options={**setup.options, "precision": "int8"})
        ).load()
