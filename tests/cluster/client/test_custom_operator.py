"""Operators of the caller's own in torch and in ONNX graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cluster.client import Client, custom_operator
from cluster.errors import ConfigError
from tests.cluster.client.own_operators import doubled_graph, plus_one, twice


def test_an_operator_made_of_torchs_own_is_exported_as_what_it_is_made_of(tmp_path: Path) -> None:
    with custom_operator("sdk_test::shift", plus_one) as shift, Client(device="cpu") as client:

        class Shifts(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(4, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                found: torch.Tensor = torch.ops.sdk_test.shift(self.linear(x))
                return found

        module = Shifts().eval()
        rows = np.ones((1, 4), np.float32)
        client.enable_model_cache(tmp_path, 1.0)

        made = client.optimize(
            module, example={"x": rows}, custom_operators=[shift], num_rounds=2,
            options={"precision": "fp32"}, level="basic",
        )  # fmt: skip

        assert made.report is not None
        assert not made.report.ignored
        (found,) = made.predict(x=rows).values()
        assert np.allclose(found, module(torch.from_numpy(rows)).detach().numpy(), atol=1e-6)


def test_an_opaque_operator_computes_in_torch_and_is_told_as_ignored(tmp_path: Path) -> None:
    def by_numpy(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.sign(x.numpy()))

    # As in a file without deferred annotations, where they are objects.
    by_numpy.__annotations__ = {"x": torch.Tensor, "return": torch.Tensor}
    with custom_operator("sdk_test::sign", by_numpy, fake=torch.empty_like) as sign:
        assert sign(torch.tensor([-2.0, 3.0])).tolist() == [-1, 1]

        class Signs(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                found: torch.Tensor = torch.ops.sdk_test.sign(x)
                return found

        with Client(device="cpu") as client, pytest.raises(ConfigError, match="exported") as told:
            client.optimize(
                Signs(), example={"x": np.ones((1, 4), np.float32)}, custom_operators=[sign]
            )
        assert "Signs" in told.value.message


def test_a_decorator_makes_an_operator_too() -> None:
    operator = custom_operator("sdk_test::decorated")(plus_one)
    with operator:
        assert torch.ops.sdk_test.decorated(torch.zeros(2)).tolist() == [1, 1]


def test_a_graph_that_calls_the_operator_twice_over_is_served_after_the_function_is_in_it(
    tmp_path: Path,
) -> None:
    operator = custom_operator("mine::Twice", onnx_function=twice())
    file = operator.add_to_graph(doubled_graph(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    again = operator.add_to_graph(file, tmp_path / "c.onnx")

    with Client(device="cpu") as client:
        for each in (file, again):
            (found,) = client.load_model(each).predict([[1, 2, 3, 4]]).values()
            assert found.tolist() == [[2, 4, 6, 8]]


def test_names_functions_and_graphs_that_do_not_fit_are_told(tmp_path: Path) -> None:
    for name in ("noname", "aten::add", "a::b::c", "1a::b"):
        with pytest.raises(ConfigError, match="SPACE::NAME"):
            custom_operator(name, plus_one)
    with pytest.raises(ConfigError, match="annotated"):
        custom_operator("sdk_test::bare", lambda x: x)
    graph = doubled_graph(tmp_path / "a.onnx")
    plain = custom_operator("sdk_test::plain", plus_one)
    with plain, pytest.raises(ConfigError, match="no onnx_function"):
        plain.add_to_graph(graph, tmp_path / "b.onnx")
    other = custom_operator("mine::Thrice", onnx_function=twice())
    with pytest.raises(ConfigError, match="no node calls mine::Thrice"):
        other.add_to_graph(tmp_path / "a.onnx", tmp_path / "b.onnx")
    with Client(device="cpu") as client, pytest.raises(ConfigError, match="custom_operator"):
        client.optimize(str(tmp_path / "a.onnx"), custom_operators=["mine::Twice"])
