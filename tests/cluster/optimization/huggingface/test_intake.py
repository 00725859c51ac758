"""`squadron models add DIRECTORY` of the families that are run from their own files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cluster.cli.models import app
from cluster.config.store import ModelStore
from cluster.engines.engine import EngineSetup
from cluster.engines.sharded.families import FAMILIES
from cluster.engines.sharded.generate import generating
from cluster.engines.sharded.part import PartSetup, Step
from cluster.engines.sharded.torch_part import TorchPart
from cluster.engines.table import make_engine
from cluster.engines.torch import TorchEngine
from cluster.errors import ConfigError
from cluster.optimization.add import add_model
from cluster.optimization.huggingface.families import CARDS
from cluster.optimization.huggingface.intake import tensor_degrees
from cluster.placement.estimates.transformers import SHAPES
from cluster.placement.partition import Shard
from cluster.processing.pipeline import Pipeline
from cluster.tensors import bytes_array
from tests.cluster.engines.sharded.directories import (
    MODELS,
    VOCABULARY,
    expected,
    gpt2,
    inputs_of,
    llama,
    saved,
    vit,
)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


def directory(tmp_path: Path, model: Any, **options: Any) -> Path:
    saved(model, tmp_path / "mine", **options)
    return tmp_path / "mine"


def change(folder: Path, file: str = "config.json", **values: object) -> None:
    path = folder / file
    there = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(there | values))


def added(source: Path, store: ModelStore, *arguments: str) -> dict[str, Any]:
    given = ["add", str(source), "--store", str(store.root), "--json", *arguments]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def answer(store: ModelStore, inputs: dict[str, torch.Tensor]) -> Any:
    engine = make_engine("torch", EngineSetup(card=store.card("mine"), folder=store.folder("mine")))
    engine.load()
    (found,) = engine.infer({name: value.numpy() for name, value in inputs.items()}).values()
    return found


def test_whoever_reads_a_family_knows_all_of_them() -> None:
    assert list(FAMILIES) == list(CARDS) == list(SHAPES)
    for name, family in FAMILIES.items():
        assert family.model_class.__name__ in CARDS[name].architectures


@pytest.mark.parametrize("family", MODELS)
def test_an_added_directory_computes_what_transformers_does_whole_and_in_layers(
    family: str, tmp_path: Path, store: ModelStore
) -> None:
    model = MODELS[family]()
    facts = added(directory(tmp_path, model), store, "--format", "huggingface")
    wanted = expected(model, inputs_of(family)).numpy()

    assert facts["format"] == "huggingface"
    assert [each["name"] for each in facts["inputs"]] == list(inputs_of(family))
    np.testing.assert_allclose(answer(store, inputs_of(family)), wanted, atol=1e-5)
    values: dict[str, Any] = dict(inputs_of(family))
    for stage, layers in enumerate((range(2), range(2, 4))):
        shard = Shard(
            rank=stage, stage=stage, num_stages=2, tensor_rank=0, tensor_degree=1,
            layers=layers, device="cpu",
        )  # fmt: skip
        part = TorchPart(
            PartSetup(card=store.card("mine"), folder=store.folder("mine"), shard=shard)
        )
        part.load()
        values = part.run(values, Step())
    (found,) = values.values()
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_language_model_without_a_tokenizer_gives_logits_and_streams_tokens(
    make: Any, tmp_path: Path, store: ModelStore
) -> None:
    model = make()
    facts = added(directory(tmp_path, model), store)
    assert facts["outputs"] == [
        {"name": "logits", "datatype": "FP32", "shape": [-1, -1, VOCABULARY]}
    ]

    options = {"task": "generate"}
    card = generating(store.card("mine"), options)
    engine = TorchEngine(EngineSetup(card=card, folder=store.folder("mine"), options=options))
    engine.load()
    ids = inputs_of("llama")["input_ids"][:1]
    tokens = [
        int(each["token"][0])
        for each in engine.stream({"input_ids": ids.numpy()[0]}, {"max_tokens": 6})
    ]

    greedy = ids
    for _ in range(6):
        last = expected(model, {"input_ids": greedy})[:, -1].argmax(-1, keepdim=True)
        greedy = torch.cat([greedy, last], dim=1)
    assert tokens == greedy[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("make", [llama, gpt2])
def test_one_with_a_tokenizer_generates_text_unless_its_files_are_asked_for(
    make: Any, tmp_path: Path, store: ModelStore
) -> None:
    source = directory(tmp_path, make())
    (source / "tokenizer.json").write_text("{}")
    assert add_model(source, store).format == "causal_lm"

    card = add_model(source, store, format_="huggingface")

    assert (card.version, card.format) == ("2", "huggingface")
    assert (store.folder("mine") / "tokenizer.json").is_file()


def test_weights_in_several_files_come_along_and_nothing_else_does(
    tmp_path: Path, store: ModelStore
) -> None:
    model = llama()
    source = directory(tmp_path, model, max_shard_size="50KB")
    (source / "consolidated.safetensors").write_bytes(b"the same weights in another order")
    (source / "pytorch_model.bin").write_bytes(b"pickled")
    (source / "modeling_mine.py").write_text("code")

    added(source, store)

    names = {file.name for file in store.folder("mine").iterdir()}
    assert names >= {"config.json", "model.safetensors.index.json"}
    assert {Path(name).suffix for name in names} == {".json", ".yaml", ".safetensors"}
    assert "consolidated.safetensors" not in names
    wanted = expected(model, inputs_of("llama")).numpy()
    np.testing.assert_allclose(answer(store, inputs_of("llama")), wanted, atol=1e-5)


def test_a_text_model_in_several_files_is_known_by_their_index(
    tmp_path: Path, store: ModelStore
) -> None:
    source = directory(tmp_path, llama(), max_shard_size="50KB")
    (source / "tokenizer.json").write_text("{}")

    card = add_model(source, store)

    assert (card.format, card.artefact) == ("causal_lm", "model.safetensors.index.json")
    assert store.verify("mine") == card


def test_a_tied_head_is_the_table_and_one_that_is_not_tied_is_asked_for(
    tmp_path: Path, store: ModelStore
) -> None:
    model = llama(tie_word_embeddings=True)
    source = directory(tmp_path, model)
    added(source, store)
    wanted = expected(model, inputs_of("llama")).numpy()
    np.testing.assert_allclose(answer(store, inputs_of("llama")), wanted, atol=1e-5)

    change(source, tie_word_embeddings=False)
    with pytest.raises(ConfigError, match=r"have no tensor 'lm_head\.weight'"):
        add_model(source, store)


def test_vit_with_a_processor_takes_pictures_and_gives_labels(
    tmp_path: Path, store: ModelStore
) -> None:
    transformers = pytest.importorskip("transformers")
    model = vit()
    names = ["cat", "dog", "fox", "hen", "owl"]
    model.config.id2label = dict(enumerate(names))
    source = directory(tmp_path, model)
    told: dict[str, Any] = {
        "size": {"height": 32, "width": 32},
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.3, 0.4],
    }
    processor = transformers.ViTImageProcessorPil(**told)
    processor.save_pretrained(source)
    pixels = np.random.default_rng(5).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    photo = io.BytesIO()
    Image.fromarray(pixels).save(photo, "PNG")

    added(source, store)

    card, folder = store.card("mine"), store.folder("mine")
    public = card.public_signature()
    assert [(spec.name, spec.datatype) for spec in public.inputs] == [("image", "BYTES")]
    pipeline = Pipeline(card, folder)
    given = pipeline.merge([pipeline.prepare({"image": bytes_array([photo.getvalue()], (1,))})])
    wanted = processor(Image.fromarray(pixels), return_tensors="pt")
    np.testing.assert_allclose(given["pixel_values"], wanted["pixel_values"], atol=1e-5)
    scores = expected(model, dict(wanted)).softmax(-1)[0]
    logits = answer(store, {"pixel_values": torch.from_numpy(given["pixel_values"])})
    found = pipeline.finish({"logits": logits}, given, {"labels", "scores"})
    order = scores.argsort(descending=True).tolist()
    assert [each.decode() for each in found["labels"][0]] == [names[i] for i in order]
    np.testing.assert_allclose(found["scores"][0], scores[order], atol=1e-5)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"resample": 1}, r"resample is 1; allowed: 0 \(nearest\)"),
        ({"size": {"height": 48, "width": 48}}, "size is .*; allowed: 32 x 32"),
        ({"do_resize": False}, "do_resize is False; allowed: true"),
        ({"image_std": [1, 1]}, r"image_std is \[1, 1\]; allowed: three numbers"),
    ],
    ids=str,
)
def test_a_processor_that_cannot_be_followed_is_named(
    told: dict[str, object], said: str, tmp_path: Path, store: ModelStore
) -> None:
    source = directory(tmp_path, vit())
    change(source, "preprocessor_config.json", **told)
    with pytest.raises(ConfigError, match=said):
        add_model(source, store)
    assert store.list() == ()


def test_a_crop_out_of_a_larger_picture_is_the_cards_padding(
    tmp_path: Path, store: ModelStore
) -> None:
    source = directory(tmp_path, vit())
    told = {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": 32, "resample": 3}
    change(source, "preprocessor_config.json", **told)
    preprocess = add_model(source, store).preprocess
    assert preprocess is not None
    assert preprocess.kind == "image"
    assert (preprocess.crop_padding, preprocess.fit, preprocess.resample) == (4, "crop", "bicubic")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden_size": 60}, r"is \[.*\], config\.json makes it"),
        ({"num_hidden_layers": 9}, r"have no tensor 'model\.layers\.4\."),
        ({"num_attention_heads": "many"}, r"config\.json: transformers refuses it"),
        ({"quantization_config": {"bits": 4}}, "quantised by another tool"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "A family is added as cluster"),
        ({"model_type": "gemma2"}, r"'gemma2'\) cannot be added.*llama, .*LlamaForCausalLM|gpt2"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_said_before_anything_is_copied(
    values: dict[str, object], said: str, tmp_path: Path, store: ModelStore
) -> None:
    source = directory(tmp_path, llama())
    change(source, **values)
    with pytest.raises(ConfigError, match=said):
        add_model(source, store)
    assert store.list() == ()


def test_pickled_weights_are_refused_by_name(tmp_path: Path, store: ModelStore) -> None:
    source = directory(tmp_path, gpt2())
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"there is pytorch_model\.bin.*unpickled.*save_pretrain"):
        add_model(source, store)


@pytest.mark.parametrize("size", [0, 4, 100, -10])
def test_weights_that_are_cut_short_are_named(size: int, tmp_path: Path, store: ModelStore) -> None:
    source = directory(tmp_path, gpt2())
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(ConfigError, match=r"model\.safetensors: "):
        add_model(source, store)


def test_a_format_is_for_directories_that_can_be_it(tmp_path: Path, store: ModelStore) -> None:
    source = directory(tmp_path, vit())
    with pytest.raises(ConfigError, match="cannot be added from a Hugging Face directory as onnx"):
        add_model(source, store, format_="onnx")
    with pytest.raises(ConfigError, match="allowed: huggingface, causal_lm, onnx"):
        add_model(source, store, format_="gguf")
    with pytest.raises(ConfigError, match="--format is for a Hugging Face directory"):
        add_model(source / "model.safetensors", store, format_="onnx")


def test_the_degrees_that_are_shown_divide_heads_and_hidden_units() -> None:
    config = {"model_type": "gpt2", "n_embd": 48, "n_head": 12, "n_layer": 4, "vocab_size": 96}
    assert tensor_degrees(config) == (2, 3, 4, 6, 12)
    assert tensor_degrees(config | {"n_head": 1}) == ()


def test_what_to_write_in_a_config_is_shown(tmp_path: Path, store: ModelStore) -> None:
    source = directory(tmp_path, gpt2())
    shown = CliRunner().invoke(app, ["add", str(source), "--store", str(store.root)])
    assert "mine-tokens: {source: mine, options: {task: generate}}" in shown.stdout
    assert "placement: {strategy: layer, shards: 2}}" in shown.stdout
    assert "mine-tensor2: " in shown.stdout
