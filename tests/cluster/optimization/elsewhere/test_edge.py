"""Files for phones, made by their own converters and run by their own runtimes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.errors import ConfigError
from cluster.optimization.elsewhere import environment
from cluster.optimization.elsewhere.edge import (
    LIBRARY_OF,
    EdgeFile,
    _difference,
    check_limits,
    make_edge_file,
)
from cluster.optimization.elsewhere.environment import interpreter, run_worker, why_not
from tests.cluster.optimization.tiny_nets import TinyCnn, TinyMlp

NETS = Path(__file__).parents[1] / "tiny_nets.py"


class TwoInputs(torch.nn.Module):
    """Which input is which shows, and so does which output."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a - 2 * b, a * 3


def skip_without(suffix: str) -> None:
    if reason := why_not(LIBRARY_OF[suffix]):
        pytest.skip(reason)


@pytest.mark.parametrize("suffix", LIBRARY_OF)
def test_the_file_answers_as_torch_does_in_its_own_runtime(suffix: str, tmp_path: Path) -> None:
    skip_without(suffix)
    net = TinyCnn()
    draw = np.random.default_rng(0)
    items = [{"image": draw.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(3)]

    made = make_edge_file(
        net, net.example_inputs(), tmp_path / f"net{suffix}", items=items, max_bytes=100_000
    )

    assert made.difference < 1e-5
    assert made.runtime.split()[0] in ("LiteRT", "ExecuTorch")
    assert made.file.stat().st_size == made.num_bytes > 10_000
    assert made.p50_ms > 0


@pytest.mark.parametrize("suffix", LIBRARY_OF)
def test_inputs_and_outputs_keep_their_order(suffix: str, tmp_path: Path) -> None:
    skip_without(suffix)
    example = {"a": np.ones((1, 4), np.float32), "b": np.full((1, 4), 5, np.float32)}

    assert make_edge_file(TwoInputs(), example, tmp_path / f"two{suffix}").difference < 1e-6


def test_rows_without_a_batch_and_single_numbers_are_compared_as_they_are() -> None:
    class Scaled(torch.nn.Module):
        def forward(self, x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
            return x * by

    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    columns = {"x": x, "by": np.asarray([2, 3], np.float32)}
    right = x * [[2], [3]]

    assert _difference(Scaled(), columns, 2, [right], "net.pte") == 0
    with pytest.raises(ConfigError, match=r"output 0 is \[2\] there, \[4\] in torch"):
        _difference(Scaled(), columns, 2, [right[:, :2]], "net.pte")


@pytest.mark.parametrize("suffix", LIBRARY_OF)
def test_a_file_that_breaks_a_limit_is_not_left_behind(suffix: str, tmp_path: Path) -> None:
    skip_without(suffix)
    net = TinyMlp()

    with pytest.raises(ConfigError, match=r"at most 0\.001 MB are allowed"):
        make_edge_file(net, net.example_inputs(), tmp_path / f"net{suffix}", max_bytes=1000)

    assert not (tmp_path / f"net{suffix}").exists()


def test_the_command_writes_one(tmp_path: Path) -> None:
    skip_without(".pte")

    done = CliRunner().invoke(
        app, ["convert", f"{NETS}:TinyMlp", str(tmp_path / "mlp.pte"), "--json"]
    )

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["bytes"] == (tmp_path / "mlp.pte").stat().st_size


def test_limits_name_what_they_were_broken_by() -> None:
    made = EdgeFile(
        file=Path("net.pte"), runtime="ExecuTorch 1.5", num_bytes=2_000_000, difference=0.0,
        p50_ms=8.0,
    )  # fmt: skip

    check_limits(made, max_bytes=2_000_000, max_latency_ms=8)
    with pytest.raises(ConfigError, match=r"net.pte would weigh 2 MB, at most 1 MB"):
        check_limits(made, max_bytes=1_000_000)
    with pytest.raises(ConfigError, match=r"takes 8.00 ms a row .* by ExecuTorch 1.5, at most 5"):
        check_limits(made, max_latency_ms=5)


def test_a_converter_that_is_nowhere_is_told_with_what_makes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SQUADRON_EDGE_PYTHON", str(tmp_path / "no-python"))

    with pytest.raises(ConfigError, match="make setup-edge"):
        interpreter("litert")
    assert "litert_torch and ai_edge_litert" in why_not("litert")
    with pytest.raises(ConfigError, match="make setup-edge"):
        make_edge_file(TinyMlp(), TinyMlp().example_inputs(), tmp_path / "net.tflite")
    assert not list(tmp_path.glob("*.tflite"))


def test_what_a_worker_says_last_is_the_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = environment.Place(
        modules=("json",), environment="none", variable="SQUADRON_TEST_PYTHON", setup="nothing"
    )
    monkeypatch.setitem(environment.PLACES, "litert", here)
    monkeypatch.setenv("SQUADRON_TEST_PYTHON", sys.executable)
    worker = tmp_path / "worker.py"

    worker.write_text("print('talk')\nprint('{\"x\": 1}')")
    assert run_worker("litert", worker) == {"x": 1}
    worker.write_text("raise ValueError('aten.nothing is not supported')")
    with pytest.raises(ConfigError, match=r"cannot convert it: .*aten.nothing is not supported"):
        run_worker("litert", worker)
