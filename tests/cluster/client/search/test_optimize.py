"""`Client.optimize` on a torch class of the caller's own: a faster variant and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cluster.client import Client, Model
from cluster.config.store import ModelStore
from cluster.errors import ConfigError
from cluster.optimization.gate.gate import GateLimits
from cluster.optimization.intake.data import Dataset
from cluster.tensors import Array
from tests.cluster.client.places import Place

LOOSE = GateLimits(max_accuracy_loss_points=5, min_top1_agreement=0.9, min_cosine=0.9)


class Mine(nn.Module):
    """What somebody writes in a notebook."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.body(x)
        return found


def examples(num: int) -> Array:
    return np.random.default_rng(5).normal(size=(num, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def client(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with place.client() as made:
        made.enable_model_cache(tmp_path_factory.mktemp("cache"), 1.0)
        yield made


@pytest.fixture(scope="module")
def optimised(client: Client) -> Model:
    module = Mine().eval()
    rows = examples(48)
    with torch.no_grad():
        labels = module(torch.from_numpy(rows)).argmax(1)
    data = Dataset(
        origin="rows",
        is_real=True,
        items=tuple({"x": rows[i : i + 1]} for i in range(48)),
        labels=tuple(int(label) for label in labels),
    )
    return client.optimize(
        module, example={"x": rows[:1]}, data=data, level="basic", limits=LOOSE, num_rounds=2,
        options={"precision": "dynamic", "use_cudnn": True},
    )  # fmt: skip


def test_the_chosen_variant_answers_as_the_module_does(optimised: Model) -> None:
    rows = examples(20)
    with torch.no_grad():
        expected = Mine().eval()(torch.from_numpy(rows)).numpy()

    (found,) = optimised.predict(x=rows).values()

    assert optimised.is_optimized()
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    assert not np.array_equal(found, expected)


def test_the_report_tells_candidates_accuracy_and_ignored_options(optimised: Model) -> None:
    report = optimised.report
    assert report is not None

    assert report.chosen.name == "onnxruntime-int8-dynamic"
    assert report.chosen.verdict is not None
    assert report.chosen.verdict.accuracy is not None
    assert report.is_real_data
    assert set(report.ignored) == {"use_cudnn"}
    assert set(optimised.applied) == {"precision"}
    assert "GPU" in report.as_dict()["ignored"]["use_cudnn"]  # type: ignore[index]


def test_the_variant_goes_into_the_store_as_an_arm_of_an_experiment(
    client: Client, optimised: Model, place: Place, tmp_path: Path
) -> None:
    card = client.add_to_store(optimised, "mine-fast")

    assert ModelStore(place.store).verify("mine-fast").precision == "int8"
    rows = examples(3)
    with client.load_model("mine-fast") as again:
        assert again.is_optimized()
        for name, array in optimised.predict(x=rows).items():
            assert np.array_equal(again.predict(x=rows)[name], array)
    assert card.name == "mine-fast"


def test_a_model_that_was_loaded_is_optimised_too(client: Client) -> None:
    with client.load_model("mlp") as loaded:
        made = client.accelerate(
            loaded, level="basic", options={"precision": "int8"}, limits=LOOSE, num_rounds=2
        )

        rows = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
        assert made.report is not None
        assert made.report.baseline == "original"
        assert not made.report.is_real_data
        before, after = loaded.predict(rows), made.predict(rows)
        (name,) = before
        assert before[name].argmax(1).tolist() == after[name].argmax(1).tolist()


def test_the_cache_is_where_it_was_asked_for_and_can_be_left_out(
    place: Place, tmp_path: Path
) -> None:
    with place.client() as client:
        client.enable_model_cache(tmp_path / "kept", 0.5)
        wishes = {"level": "basic", "options": {"precision": "dynamic"}, "num_rounds": 2}
        first = client.optimize("mlp", use_cache=False, **wishes)
        assert not list((tmp_path / "kept").iterdir())

        second = client.optimize("mlp", **wishes)
        third = client.optimize("mlp", **wishes)

        built = [each.report.candidates[1] for each in (first, second, third) if each.report]
        assert [each.was_cached for each in built] == [False, False, True]
        assert list((tmp_path / "kept").iterdir())


def test_optimising_for_phones_writes_a_file_that_onnxruntime_reads(client: Client) -> None:
    import onnxruntime

    made = client.optimize(
        "mlp", target_device="mobile", target="size", level="basic", num_rounds=2,
        options={"enable_quantization": False, "target_platform": "android"},
    )  # fmt: skip

    assert made.ort_file is not None
    session = onnxruntime.InferenceSession(made.ort_file, providers=["CPUExecutionProvider"])
    rows = np.ones((2, 64), np.float32)
    (found,) = session.run(None, {session.get_inputs()[0].name: rows})
    (served,) = made.predict(rows).values()
    assert np.allclose(found, served, atol=1e-5)
    # The store's graph is no torch module: what else phones read is told as not made, and why.
    assert made.edge_files == {}
    assert made.report is not None
    assert "is an ONNX graph" in made.report.ignored["target_platform.tflite"]
    assert "is an ONNX graph" in made.report.ignored["target_platform.pte"]


def test_a_file_that_may_be_a_pickle_is_not_opened(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR.")

    for call in (client.load_model, client.optimize):
        with pytest.raises(ConfigError, match="pickle"):
            call(str(file))


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"target": "beauty"}, "latency, throughput, size"),
        ({"target_device": "tpu"}, "cpu, cuda, multi_gpu, mobile"),
        ({"level": "extreme"}, "basic, balanced, max"),
        ({"options": {"speed": 11}}, "no option 'speed'"),
        ({"candidates": ["echo"]}, "compared on data"),
    ],
)
def test_wrong_wishes_are_told_before_anything_is_built(
    client: Client, wish: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        client.optimize("mlp", **wish)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0.0, -1.0])
def test_a_cache_without_room_is_refused(client: Client, tmp_path: Path, size: float) -> None:
    with pytest.raises(ConfigError, match="max_cache_size_gb"):
        client.enable_model_cache(tmp_path, size)


def test_the_length_of_sequences_reaches_the_random_inputs(client: Client, tmp_path: Path) -> None:
    from tests.cluster.client.own_operators import doubled_tokens

    seen = client.optimize(
        doubled_tokens(tmp_path / "tokens.onnx"), level="basic", num_rounds=2,
        options={"sequence_length": 7, "precision": "fp32", "enable_kernel_fusion": False},
    )  # fmt: skip
    without = client.optimize(
        "mlp", level="basic", num_rounds=2,
        options={
            "sequence_length": 7, "precision": "dynamic", "use_mkldnn": False, "prune_ratio": 0.5,
        },
    )  # fmt: skip

    assert "7 tokens" in seen.applied["sequence_length"]
    assert without.report is not None
    assert "no integer input" in without.report.ignored["sequence_length"]
    # A graph at level basic: nothing is run by torch, nothing is pruned.
    assert "by torch" in without.report.ignored["use_mkldnn"]
    assert "level max" in without.report.ignored["prune_ratio"]
