"""What a caller gives that is no number, and what is done with a module that stays his."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.client import Client, ModelEnsemble
from cluster.client.embedded import EngineBackend
from cluster.errors import ConfigError
from cluster.optimization.measure.variant import Variant, opened
from tests.cluster.client.places import Place, row
from tests.contracts.tiny_models import TINY


@pytest.mark.parametrize(
    ("give", "says"),
    [
        (lambda model: model.enable_memory_optimization(max_memory_mb="1"), "max_memory_mb is '1'"),
        (lambda model: model.enable_kv_cache("long"), "max_sequence_length is 'long'"),
        (lambda model: model.benchmark([1], num_rounds=0), "num_rounds is 0"),
        (lambda model: ModelEnsemble([model, model], weights="ab"), "give one a member"),
    ],
)
def test_what_is_no_number_is_told_with_its_name(
    place: Place, give: Callable[[object], object], says: str
) -> None:
    with (
        place.client() as client,
        client.load_model("echo") as model,
        pytest.raises(ConfigError, match=says),
    ):
        give(model)


def test_a_cache_size_that_is_no_number_is_told(place: Place, tmp_path: Path) -> None:
    with place.client() as client, pytest.raises(ConfigError, match="max_cache_size_gb is 'a'"):
        client.enable_model_cache(tmp_path, "a")  # type: ignore[arg-type]


def test_rounds_that_are_none_are_refused_before_the_search(place: Place) -> None:
    with place.client() as client, pytest.raises(ConfigError, match="num_rounds is 0"):
        client.optimize("mlp", num_rounds=0)


def test_more_threads_than_a_machine_can_have_are_refused_before_one_is_started(
    place: Place,
) -> None:
    says = "is 100000; allowed: 1 to 256"
    with pytest.raises(ConfigError, match=says):
        Client(threads=100_000)
    with place.client() as client, pytest.raises(ConfigError, match=says):
        client.optimize("mlp", options={"num_threads": 100_000})
    told = CliRunner().invoke(app, ["benchmark", "mlp", "--threads", "100000"])
    assert told.exit_code == 2
    assert "256" in told.stderr


def test_a_module_computes_in_evaluation_mode_and_is_given_back_in_its_own() -> None:
    before = torch.get_num_threads()
    module = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4))
    module.train()
    torch.set_num_threads(2)
    try:
        with Client(threads=1) as client:
            model = client.load_model(module, example={"x": row()})
            first, second = (model.predict(x=row())["output"] for _ in range(2))

            np.testing.assert_array_equal(first, second)  # no numbers dropped
            assert module.training
            assert module[0].training
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("made", ["torchscript", "torch_export"])
def test_a_torch_file_in_this_process_leaves_the_callers_threads(tmp_path: Path, made: str) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    setup = TINY[made][1](tmp_path)
    variant = Variant(card=setup.card, folder=setup.folder)
    torch.set_num_threads(3)
    try:
        backend = EngineBackend(variant, device="cpu", threads=1)
        seen.append(torch.get_num_threads())
        backend.infer({"x": np.ones((2, 4), np.float32)}, ())
        seen.append(torch.get_num_threads())
        backend.close()
        with opened(variant, threads=1) as run:
            run({"x": np.ones((2, 4), np.float32)})
        seen.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)

    assert seen == [3, 3, 3]
