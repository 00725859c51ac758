"""The whole search on networks of a few thousand parameters."""

from __future__ import annotations

import errno
import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from cluster.cli.main import app
from cluster.config.store import ModelStore
from cluster.config.variant import VariantConfig
from cluster.engines.cache.artefact_cache import ArtefactCache
from cluster.engines.engine import EngineSetup
from cluster.engines.fit import check_fit
from cluster.engines.table import make_engine
from cluster.errors import ConfigError
from cluster.optimization.gate.gate import GateLimits
from cluster.optimization.intake.data import Dataset
from cluster.optimization.measure.variant import Variant
from cluster.optimization.search.keep import add_to_store, keep, serve_section
from cluster.optimization.search.optimize import Wish, optimize
from cluster.optimization.search.recipes import RECIPES, recipes_of
from cluster.optimization.search.report import Candidate, OptimizeReport
from tests.cluster.optimization.tiny_nets import TinyCnn, TinyMlp, best_classes, exported, rows

LOOSE = GateLimits(max_accuracy_loss_points=5, min_top1_agreement=0.9, min_cosine=0.9)


def data_of(module: torch.nn.Module, num: int = 80) -> Dataset:
    inputs = rows(module, num)
    items = tuple({name: array[i : i + 1] for name, array in inputs.items()} for i in range(num))
    labels = tuple(int(each) for each in best_classes(module, inputs))
    return Dataset(origin="known rows", is_real=True, items=items, labels=labels)


def search(model: object, tmp_path: Path, **wish: object) -> OptimizeReport:
    fields: dict[str, object] = {"limits": LOOSE, "num_rounds": 2, "measure_memory": False}
    return optimize(
        model,  # type: ignore[arg-type]
        Wish(**(fields | wish)),  # type: ignore[arg-type]
        store=ModelStore(tmp_path / "store"),
        cache=ArtefactCache(tmp_path / "cache"),
    )


def by_name(report: OptimizeReport) -> dict[str, Candidate]:
    return {each.name: each for each in report.candidates}


ON_CNN = ("onnxruntime-int8-static", "onnxruntime-mixed", "openvino-int8")
ON_MLP = tuple(
    each.name
    for each in RECIPES
    if each.name not in ON_CNN
    # These need a module, which a graph is not: they have tests of their own.
    and not any(word in each.name for word in ("inductor", "low-rank", "pruned", "trained"))
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`TinyMlp` as a file, exported once for all tests here."""
    folder = tmp_path_factory.mktemp("graph")
    exported(TinyMlp(), folder)
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def every_recipe(graph: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Candidate]:
    folder = tmp_path_factory.mktemp("every")
    exported(TinyCnn(), folder)
    on_cnn = search(
        folder / "model.onnx", folder, recipes=ON_CNN, data=data_of(TinyCnn()), num_rounds=1
    )
    on_mlp = search(graph, folder, recipes=ON_MLP, data=data_of(TinyMlp()), num_rounds=1)
    return by_name(on_mlp) | by_name(on_cnn)


@pytest.mark.parametrize("name", sorted((*ON_CNN, *ON_MLP)))
def test_every_recipe_builds_something_that_is_served_and_judged(
    name: str, every_recipe: dict[str, Candidate]
) -> None:
    recipe = next(each for each in RECIPES if each.name == name)
    absent = [each for each in recipe.requires if find_spec(each) is None]
    if absent:
        pytest.skip(f"{name}: not installed: {', '.join(absent)}")
    if name == "onnxruntime-fp32":
        assert name not in every_recipe  # the original is the same
        return
    found = every_recipe[name]
    if name.endswith("fused"):
        assert found.reason == "no transformer: nothing of the kind to fuse"
        return
    if found.reason.startswith("the processor has no bf16"):
        pytest.skip(f"{name}: {found.reason}")
    assert found.status in ("measured", "failed the gate"), found.reason
    assert found.verdict is not None
    assert found.verdict.agreement.cosine.value > 0.9
    if recipe.precision in ("int8", "int8-weights", "int4-weights"):
        reference = every_recipe["original"] if name in ON_CNN else None
        assert found.size_bytes < (reference.size_bytes if reference else 350_000)


def test_a_module_of_ones_own_is_measured_against_itself_run_eagerly(tmp_path: Path) -> None:
    names = ("onnxruntime-fp32", "onnxruntime-int8-dynamic", "inductor-fp32")
    report = search(TinyMlp(), tmp_path, recipes=names, data=data_of(TinyMlp()))

    assert report.baseline == "torch-eager-fp32"
    assert report.is_real_data
    assert by_name(report)["onnxruntime-fp32"].speedup is not None
    assert report.chosen.status == "measured"
    # Compiled ahead of time, and served by the torch engine with the module's own answers.
    found = by_name(report)["inductor-fp32"]
    assert found.status == "measured", found.reason
    assert found.verdict is not None
    assert found.verdict.agreement.max_abs < 1e-4


def test_a_search_that_was_stopped_takes_what_was_built_from_the_cache(
    graph: Path, tmp_path: Path
) -> None:
    names = ("onnxruntime-int8-dynamic", "onnxruntime-int8-weights")
    first = search(graph, tmp_path, recipes=names[:1], data=data_of(TinyMlp()))

    second = search(graph, tmp_path, recipes=names, data=data_of(TinyMlp()))

    assert not by_name(first)[names[0]].was_cached
    assert [by_name(second)[name].was_cached for name in names] == [True, False]


def test_calibrated_recipes_are_built_again_for_other_calibration_data(
    graph: Path, tmp_path: Path
) -> None:
    names = ("onnxruntime-int8-static",)
    search(graph, tmp_path, recipes=names, data=data_of(TinyMlp()))

    again = search(graph, tmp_path, recipes=names, data=data_of(TinyMlp(), num=40))

    assert not by_name(again)[names[0]].was_cached


def test_a_bare_graph_without_data_is_optimised_and_marked_not_validated(
    graph: Path, tmp_path: Path
) -> None:
    report = search(graph, tmp_path, level="basic")

    assert report.baseline == "original"
    assert "random" in report.data
    assert not report.is_real_data
    optimised = [each for each in report.candidates if not each.is_reference and each.verdict]
    assert optimised
    assert {each.quality for each in optimised} <= {"not validated", "failed the gate"}


def test_what_loses_accuracy_beyond_the_gate_is_never_chosen(graph: Path, tmp_path: Path) -> None:
    strict = GateLimits(min_top1_agreement=1, min_cosine=0.99999999, min_cosine_of_any=0.9999999)

    report = search(
        graph, tmp_path, recipes=("onnxruntime-int4-weights", "onnxruntime-fp32-slim"),
        limits=strict, data=data_of(TinyMlp()),
    )  # fmt: skip

    lossy = by_name(report)["onnxruntime-int4-weights"]
    assert lossy.status == "failed the gate"
    assert report.chosen is not lossy
    assert lossy.timing is None


def test_another_architecture_is_put_on_the_same_front(graph: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    shutil.copyfile(graph, other)
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez(folder / "a.npz", **rows(TinyMlp(), 40))

    report = search(
        graph, tmp_path, recipes=("onnxruntime-int8-dynamic",), data=folder, candidates=(other,),
    )  # fmt: skip

    assert "other/onnxruntime-int8-dynamic" in by_name(report)
    assert by_name(report)["other/onnxruntime-int8-dynamic"].verdict is not None


def test_candidates_without_data_are_refused() -> None:
    with pytest.raises(ConfigError, match="random inputs tell nothing"):
        Wish(candidates=("a",))


def test_a_full_disk_stops_the_search_with_one_clear_error(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("cluster.optimization.search.build.seal", full)

    with pytest.raises(ConfigError, match="no space left"):
        search(graph, tmp_path, recipes=("onnxruntime-int8-dynamic",))

    assert not list((tmp_path / "cache").rglob("model.onnx"))


def test_the_chosen_variant_is_kept_with_card_report_and_page(graph: Path, tmp_path: Path) -> None:
    report = search(graph, tmp_path, recipes=("onnxruntime-int8-dynamic",), data=data_of(TinyMlp()))
    report = keep(report, tmp_path / "out")
    keep(report, tmp_path / "out")  # again, in place of the first

    said = json.loads((tmp_path / "out" / "report.json").read_text())
    page = (tmp_path / "out" / "report.html").read_text()
    assert said["chosen"]["name"] == report.chosen.name
    assert said["chosen"]["size_bytes"] > 0
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert report.chosen.name in page
    if report.chosen.variant is not None:
        card = add_to_store(report, ModelStore(tmp_path / "store"), "mine")
        folder = ModelStore(tmp_path / "store").folder("mine")
        engine = make_engine("onnxruntime", EngineSetup(card=card, folder=folder, device="cpu"))
        engine.load()
        assert report.chosen.quality in card.provenance.notes


def test_a_folder_of_somebody_else_is_not_overwritten(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    report = search(graph, tmp_path, recipes=("onnxruntime-fp32",))

    with pytest.raises(ConfigError, match="is not empty"):
        keep(report, tmp_path / "out")

    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_levels_hold_those_below_them() -> None:
    sizes = [len(recipes_of(level)) for level in ("basic", "balanced", "max")]

    assert sizes == sorted(set(sizes))
    assert sizes[-1] == len(RECIPES)


def test_the_command_prints_one_json_object_with_what_was_chosen(
    graph: Path, tmp_path: Path
) -> None:
    arguments = ["optimize", str(graph), "--level", "basic", "--json",
                 "--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache"),
                 "--rounds", "2"]  # fmt: skip

    done = CliRunner().invoke(app, arguments)

    said = json.loads(done.stdout)
    assert done.exit_code == 0, done.output
    assert {"speedup", "latency_ms", "size_bytes", "agreement"} <= set(said["chosen"])
    assert said["candidates"]
    assert said["validated"] is False
    assert (tmp_path / "out" / "report.html").is_file()


def test_what_was_added_to_the_store_says_how_it_is_served_as_it_was_measured(
    graph: Path, tmp_path: Path
) -> None:
    store = ModelStore(tmp_path / "store")
    arguments = ["optimize", str(graph), "--recipe", "onnxruntime-int8-dynamic", "--add", "fast",
                 "--store", str(store.root), "--out", str(tmp_path / "out"), "--threads", "2",
                 "--cache-dir", str(tmp_path / "cache"), "--rounds", "2"]  # fmt: skip

    said = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    told = CliRunner().invoke(app, arguments).stdout

    section = said["serve"]["fast"]
    assert section == {"source": "fast/1", "engine": said["chosen"]["engine"], "threads": 2}
    again = yaml.safe_load(told[told.index("  fast: {") :])
    assert again == {"fast": {**section, "source": "fast/2"}}
    config = VariantConfig.model_validate(again["fast"])
    assert check_fit(store.card("fast", "2"), config.engine, "cpu") == section["engine"]


def test_the_options_that_a_variant_was_measured_with_are_part_of_its_section(
    tmp_path: Path,
) -> None:
    card = exported(TinyMlp(), tmp_path)
    variant = Variant(
        card=card, folder=tmp_path, engine="openvino", options={"precision": "bf16"}, device="cuda"
    )
    chosen = Candidate(
        name="openvino-bf16", engine="openvino", precision="bf16", says="", model="m",
        status="measured", variant=variant,
    )  # fmt: skip
    report = OptimizeReport(
        model="m", sha256="", level="basic", baseline="original", data="", is_real_data=True,
        hardware={}, libraries={}, threads=1, batch_size=1, speedup_of="cpu_ms",
        candidates=(chosen,), chosen=chosen, reason="", constraints_met=True,
    )  # fmt: skip

    found = serve_section(report, card)

    assert found == {
        "source": f"{card.name}/{card.version}", "engine": "openvino",
        "options": {"precision": "bf16"}, "device": "cuda", "threads": 1,
    }  # fmt: skip
    assert report.as_dict()["chosen"]["options"] == {"precision": "bf16"}  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--level", "extreme"], "level is 'extreme'; allowed: basic, balanced, max"),
        (["--recipe", "magic"], "no recipe 'magic'; allowed:"),
        (["--max-size-mb", "-1"], "--max-size-mb -1; allowed: above 0"),
        (["--data", "/nowhere"], "no such folder"),
    ],
)
def test_a_wish_that_makes_no_sense_is_one_message(
    graph: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = CliRunner().invoke(
        app, ["optimize", str(graph), "--out", str(tmp_path / "o"), *arguments]
    )

    assert done.exit_code == 2
    assert says in done.stderr
    assert not (tmp_path / "o").exists()
