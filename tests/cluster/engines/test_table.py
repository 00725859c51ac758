from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from cluster.config.model_card import Format
from cluster.engines.engine import EngineSetup
from cluster.engines.fake import FakeEngine
from cluster.engines.table import ENGINES, EngineEntry, check_installed, default_engine, make_engine
from cluster.errors import ConfigError
from cluster.models import EngineName
from tests.contracts.tiny_models import card


def test_the_table_and_the_names_that_a_config_may_hold_agree() -> None:
    assert set(ENGINES) == set(get_args(EngineName))


@pytest.mark.parametrize(
    ("model_format", "engine"),
    [
        ("onnx", "onnxruntime"),
        ("torchscript", "torch"),
        ("torch_export", "torch"),
        ("huggingface", "torch"),
        ("causal_lm", "torch"),
        ("python", "python"),
        ("fake", "fake"),
    ],
)
def test_every_format_has_an_engine(model_format: Format, engine: str) -> None:
    assert default_engine(model_format) == engine


def test_no_format_is_forgotten() -> None:
    chosen = {default_engine(model_format) for model_format in get_args(Format)}

    # vLLM and TensorRT run what torch and ONNX Runtime run as well, where they are named.
    assert chosen == set(ENGINES) - {"vllm", "tensorrt"}


def test_an_engine_is_made_by_its_name(tmp_path: Path) -> None:
    assert type(make_engine("fake", EngineSetup(card=card(), folder=tmp_path))) is FakeEngine


def test_a_name_that_is_not_in_the_table_is_refused_naming_those_that_are(tmp_path: Path) -> None:
    allowed = "allowed: onnxruntime, openvino, tensorrt, torch, vllm, python, fake"
    with pytest.raises(ConfigError, match=allowed):
        make_engine("caffe", EngineSetup(card=card(), folder=tmp_path))  # type: ignore[arg-type]


def test_an_engine_that_is_not_installed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = EngineEntry(
        module="nowhere",
        class_name="Absent",
        formats=("fake",),
        requires="a_package_that_is_not_there",
        install='pip install "squadron-serve[absent]"',
    )
    monkeypatch.setitem(ENGINES, "fake", entry)

    with pytest.raises(ConfigError, match=r"not installed: pip install .*\[absent\]"):
        check_installed("fake")


def test_the_table_imports_no_engine() -> None:
    code = (
        "import sys; from cluster.engines.table import check_installed, default_engine; "
        "check_installed(default_engine('onnx')); check_installed('torch'); "
        "print(sorted({'torch', 'onnxruntime', 'PIL', 'tokenizers'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"
