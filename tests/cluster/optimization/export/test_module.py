"""Torch modules as ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from cluster.errors import ConfigError
from cluster.optimization.export.module import export_module, relative_difference
from cluster.optimization.export.program import rename_outputs
from cluster.optimization.intake.files import files_of
from tests.cluster.optimization.tiny_nets import TinyCnn, exported, rows


def test_an_exported_module_takes_any_batch_and_says_what_torch_says(tmp_path: Path) -> None:
    module = TinyCnn()
    card = exported(module, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / card.artefact)

    assert card.batched
    assert [(each.name, each.shape) for each in card.signature.inputs] == [
        ("image", [-1, 3, 16, 16])
    ]
    for count in (1, 2, 7):
        given = rows(module, count)
        with torch.no_grad():
            expected = module(torch.from_numpy(given["image"])).numpy()
        np.testing.assert_allclose(session.run(None, given)[0], expected, atol=1e-5)


class Unsupported(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


class Untraceable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(x.sum().item() > 0 and x.numpy().max())


@pytest.mark.parametrize("module", [Unsupported(), Untraceable()])
def test_what_the_exporter_does_not_support_is_a_clear_error_and_leaves_no_file(
    module: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="cannot be exported to ONNX"):
        export_module(module, {"x": np.ones((1, 4), np.float32)}, tmp_path, name="m")

    assert not list(tmp_path.iterdir())


def test_example_inputs_that_do_not_fit_are_named_with_their_shapes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fails on its example inputs \(image float32 \[1, 4\]"):
        export_module(TinyCnn(), {"image": np.ones((1, 4), np.float32)}, tmp_path, name="m")


class FixedState(nn.Module):
    """A state of one row: no batch can be traced."""

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert x.shape[0] == 1
        return x + state, state * 2


def test_a_module_that_takes_one_row_only_is_exported_without_a_batch(tmp_path: Path) -> None:
    example = {"x": np.ones((1, 4), np.float32), "state": np.ones((1, 4), np.float32)}

    card = export_module(FixedState(), example, tmp_path, name="m")

    assert not card.batched
    assert [each.shape for each in card.signature.outputs] == [[1, 4], [1, 4]]


def test_weights_that_are_too_large_for_a_message_lie_beside_the_graph(tmp_path: Path) -> None:
    module = TinyCnn()
    example = module.example_inputs()

    card = export_module(module, example, tmp_path, name="large", max_inside_bytes=1000)

    assert (tmp_path / "model.onnx.data").stat().st_size > 1000
    assert [file.name for file in files_of(card, tmp_path)] == ["model.onnx", "model.onnx.data"]
    given = rows(module, 3)
    with torch.no_grad():
        expected = module(torch.from_numpy(given["image"])).numpy()
    session = onnxruntime.InferenceSession(tmp_path / card.artefact)
    np.testing.assert_allclose(session.run(None, given)[0], expected, atol=1e-5)


def test_outputs_are_renamed_without_touching_weights_beside_the_graph(tmp_path: Path) -> None:
    module = TinyCnn()
    export_module(module, module.example_inputs(), tmp_path, name="large", max_inside_bytes=1000)
    graph_bytes = (tmp_path / "model.onnx").stat().st_size

    rename_outputs(tmp_path / "model.onnx", ["scores"])

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [each.name for each in session.get_outputs()] == ["scores"]
    assert (tmp_path / "model.onnx").stat().st_size < 2 * graph_bytes


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("wanted", "found", "difference"),
    [
        ([1.0, 4.0], [1.0, 3.0], 0.25),
        ([1.0, 4.0], [1.0, NAN], INF),
        ([1.0, NAN], [1.0, 2.0], INF),
        ([1.0, NAN, -INF], [1.0, NAN, -INF], 0),
        ([1.0, -INF], [1.0, INF], INF),
        ([1.0], [1.0, 2.0], INF),
        ([], [], 0),
    ],
)
def test_an_answer_that_is_no_number_is_no_small_difference(
    wanted: list[float], found: list[float], difference: float
) -> None:
    assert relative_difference(np.array(wanted), np.array(found)) == difference
