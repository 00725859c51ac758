from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from cluster.config.model_card import Format
from cluster.engines.engine import EngineSetup
from cluster.engines.fake import FakeEngine
from cluster.engines.table import ENGINES, EngineEntry, check_installed, default_engine, make_engine
from cluster.errors import ConfigError
from cluster.models import EngineName
from tests.contracts.tiny_models import card, save_onnx

SILENCING = {
    "CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL", "GITLAB_CI", "BUILD_ID",
    "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS",
}  # fmt: skip


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


def test_openvino_and_nncf_have_nothing_to_report_conversions_with() -> None:
    for name in ("openvino", "nncf"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    code = (
        "import cluster.engines.table, openvino.tools.ovc.telemetry_utils as ovc, nncf.telemetry; "
        "print(ovc.tm.__name__, type(nncf.telemetry.telemetry).__name__)"
    )

    # In a process of its own: here others may have imported both before us.
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.split() == ["openvino.tools.ovc.telemetry_stub", "MagicMock"]


def test_onnxruntime_leaves_no_identifier_and_no_events_behind(tmp_path: Path) -> None:
    save_onnx(tmp_path / "tiny.onnx")
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    for folder in (home, temporary):
        folder.mkdir()
    # These turn it off by themselves, and CI sets one of them.
    kept = {k: v for k, v in os.environ.items() if k not in SILENCING and "PYTEST" not in k}
    code = (
        "import sys; from cluster.engines.table import make_engine; import onnxruntime; "
        "onnxruntime.InferenceSession(sys.argv[1])"
    )

    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "tiny.onnx"],
        check=True,
        env={**kept, "HOME": str(home), "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(home)},
    )

    assert [*home.rglob("*"), *temporary.rglob("*")] == []
