from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from cluster.cli.check import check
from cluster.config.store import CARD_FILE
from tests.cluster.engines.sharded.directories import bert, llama, saved

app = typer.Typer()
app.command()(check)


def test_a_mistake_is_one_json_object_as_well(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("http_optons: {}\napplications: []\n")
    result = CliRunner().invoke(app, [str(file), "--json"])
    assert result.exit_code == 2
    content = json.loads(result.stdout)
    assert (content["file"], content["ok"]) == (str(file), False)
    assert "http_optons" in content["error"]


def test_one_of_a_kind_is_counted_in_the_singular() -> None:
    file = Path(__file__).parents[3] / "serve_configs" / "prod.yaml"
    result = CliRunner().invoke(app, [str(file)])
    assert "1 experiment," in " ".join(result.stdout.split())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of 4 layers, 12 heads, 6 of them for keys; an encoder beside it. `talker`
    is the first one again, as what generates."""
    root = tmp_path_factory.mktemp("store")
    for name, model in (("words", llama()), ("vectors", bert()), ("talker", llama())):
        changed = {"name": name} | ({"format": "causal_lm"} if name == "talker" else {})
        card = saved(model, root / name / "1").model_copy(update=changed)
        (root / name / "1" / CARD_FILE).write_text(card.model_dump_json(), encoding="utf-8")
    return root


def checked(folder: Path, store: Path, **variant: object) -> tuple[int, str]:
    file = folder / "serve.yaml"
    args = {"store": {"path": str(store)}, "variants": {"m": {"source": "words", **variant}}}
    application = {"import_path": "actors.app:build", "args": args}
    file.write_text(yaml.safe_dump({"applications": [application]}), encoding="utf-8")
    result = CliRunner().invoke(app, [str(file), "--json"])
    content = json.loads(result.stdout)
    return result.exit_code, content.get("error") or json.dumps(content["placements"])


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        (
            {"placement": {"strategy": "tensor", "shards": 4}},
            "placement.tensor: tensor degree 4 do",
        ),
        ({"placement": {"strategy": "layer", "shards": 5}}, "allowed: 1 to 4 stages"),
        ({"placement": {"shard_map": {"layers.0-4": "cpu"}}}, "on cpu: there is no layer 4; the"),
        ({"placement": {"shard_map": {"layers.0-1": "cpu"}}}, "layers 2 to 3 are on no device"),
        (
            {"placement": {"strategy": "layer", "shards": 2, "transport": "nccl"}},
            "NCCL moves tensors between GPUs, and shard 0 is on cpu",
        ),
        (
            {"placement": {"strategy": "layer", "shards": 2}, "options": {"dtype": "int3"}},
            "options.dtype: option dtype is 'int3'",
        ),
        ({"source": "vectors", "options": {"task": "generate"}}, "options.task: option task is"),
    ],
)
def test_a_placement_that_its_model_excludes_is_a_mistake(
    tmp_path: Path, store: Path, variant: dict[str, object], said: str
) -> None:
    code, error = checked(tmp_path, store, **variant)
    assert (code, "applications.0.args: variants.m." in error) == (2, True)
    assert said in error


def test_a_placement_is_held_against_its_model_where_that_is_here(
    tmp_path: Path, store: Path
) -> None:
    placement = {"strategy": "pipeline", "shards": 4, "tensor": 2}
    assert checked(tmp_path, store, placement=placement) == (0, '{"fitting": ["m"], "unseen": {}}')
    code, told = checked(tmp_path, store, placement=placement, source="elsewhere")
    assert (code, "no model 'elsewhere' in" in told) == (0, True)


def test_a_class_outside_its_folder_is_a_mistake_before_anything_starts(tmp_path: Path) -> None:
    tensors = {"name": "x", "datatype": "FP32", "shape": [-1, 1]}
    card = {
        "name": "m",
        "format": "python",
        "python_class": "/etc/model.py:C",
        "signature": {"inputs": [tensors], "outputs": [tensors]},
    }
    application = {
        "name": "squadron",
        "import_path": "actors.app:build",
        "args": {"variants": {"m": {"card": card}}},
    }
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump({"applications": [application]}))

    found = CliRunner().invoke(app, [str(file), "--json"])

    assert found.exit_code == 2
    error = json.loads(found.stdout)["error"]
    assert "variants.m.card.python_class" in error
    assert "outside" in error


CARD = {
    "name": "m",
    "format": "fake",
    "signature": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    },
}
OTHER = {
    "name": "o",
    "format": "fake",
    "signature": {
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    },
}


def graph(**step: object) -> dict[str, object]:
    steps = [{"model": "a", "outputs": {"y": "one"}}, {"outputs": {"y": "end"}, **step}]
    return {"inputs": ["x"], "outputs": ["end"], "steps": steps}


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"experiments": {"e": {"split": {"a": 1, "o": 1}}}},
            "experiments.e.split.o: o takes text",
        ),
        (
            {"ensembles": {"g": graph(model="a", inputs={"x": "two"})}},
            "ensembles.g.steps.1: nothing gives two",
        ),
        (
            {"ensembles": {"g": graph(model="o", inputs={"text": "one"})}},
            "ensembles.g.steps.1.inputs: o takes 'text' as BYTES",
        ),
        (
            {"ensembles": {"g": graph(model="h"), "h": graph(model="g")}},
            "models call each other in a circle",
        ),
    ],
)
def test_arms_and_steps_that_do_not_fit_their_models_are_mistakes(
    tmp_path: Path, sections: dict[str, object], said: str
) -> None:
    file = tmp_path / "serve.yaml"
    variants = {"a": {"card": CARD, "engine": "fake"}, "o": {"card": OTHER, "engine": "fake"}}
    # What nobody knows here says nothing of the rest.
    variants["gone"] = {"source": "gone"}
    unknown = {"split": {"a": 1, "gone": 1}}
    args = {"store": {"path": str(tmp_path)}, "variants": variants, **sections}
    args["experiments"] = {**args.get("experiments", {}), "unknown": unknown}
    application = {"import_path": "actors.app:build", "args": args}
    file.write_text(yaml.safe_dump({"applications": [application]}), encoding="utf-8")

    result = CliRunner().invoke(app, [str(file), "--json"])

    assert result.exit_code == 2
    assert said in json.loads(result.stdout)["error"]
    assert "unknown" not in json.loads(result.stdout)["error"]


@pytest.mark.parametrize(
    ("llm", "said"),
    [
        (
            {"speculative": {"method": "draft_model", "draft_model": "nobody"}},
            "variants.m.llm.speculative.draft_model: llm.speculative.draft_model 'nobody' is no "
            "folder and no model of the store",
        ),
        ({"chat_template": "nowhere.jinja"}, "llm.chat_template 'nowhere.jinja' is no file"),
        (
            {"lora": {"adapters": [{"name": "a", "path": "nowhere"}]}},
            "llm.lora.adapters: 'a' has no adapter_config.json in 'nowhere'",
        ),
        ({"lora": {"directory": "nowhere"}}, "llm.lora.directory 'nowhere' is no folder"),
        (
            {"lora": {"adapters": [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]}},
            "adapters: a is there twice",
        ),
        ({"tensor_parallel": 5}, "llm.tensor_parallel 5 does not divide the 12 attention heads"),
        ({"pipeline_parallel": 5}, "llm.pipeline_parallel 5 is more than the 4 layers"),
        ({"max_model_len": 10**6}, "llm.max_model_len 1000000 is more than the 2048 positions"),
    ],
)
def test_a_language_model_is_held_against_what_it_is(
    tmp_path: Path, store: Path, llm: dict[str, object], said: str
) -> None:
    code, error = checked(tmp_path, store, source="talker", engine="vllm", llm=llm)

    assert code == 2
    assert said in error


def test_what_generates_nothing_has_no_llm(tmp_path: Path, store: Path) -> None:
    code, error = checked(tmp_path, store, source="vectors", llm={})

    assert (code, "only causal_lm models generate" in error) == (2, True)


def test_a_language_model_that_is_not_here_is_said_to_be_unseen(
    tmp_path: Path, store: Path
) -> None:
    code, placements = checked(tmp_path, store, source="elsewhere", llm={})

    assert code == 0
    assert json.loads(placements)["unseen"]["m"].startswith("no model 'elsewhere' in ")


def test_a_draft_of_the_store_is_found(tmp_path: Path, store: Path) -> None:
    speculative = {"method": "draft_model", "draft_model": "words"}

    said = checked(
        tmp_path, store, source="talker", engine="vllm", llm={"speculative": speculative}
    )

    assert said[0] == 0
