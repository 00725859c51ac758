from __future__ import annotations

import gc
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.engines.engine import EngineSetup
from cluster.engines.sharded.generate import generating
from cluster.engines.sharded.offload import _fits
from cluster.engines.sharded.part import PartSetup, Step
from cluster.engines.sharded.torch_part import TorchPart
from cluster.engines.torch import TorchEngine
from cluster.errors import ConfigError, InvalidRequest
from cluster.placement.partition import Shard
from tests.cluster.engines.sharded.directories import MODELS, expected, inputs_of, llama, saved


def part(folder: Path, card: Any, layers: range, *, of: int, **given: Any) -> TorchPart:
    stage = 0 if layers.start == 0 else 1
    shard = Shard(
        rank=stage,
        stage=stage,
        num_stages=1 if len(layers) == of else 2,
        tensor_rank=0,
        tensor_degree=1,
        layers=layers,
        device="cpu",
    )
    return TorchPart(PartSetup(card=card, folder=folder, shard=shard, **given))


def two_parts(folder: Path, card: Any, **given: Any) -> list[TorchPart]:
    return [
        part(folder, card, range(start, stop), of=4, **given) for start, stop in pairwise((0, 1, 4))
    ]


def through(parts: list[TorchPart], values: dict[str, Any], step: Step | None = None) -> Any:
    for each in parts:
        values = each.run(values, step or Step())
    (found,) = values.values()
    return found


@pytest.mark.parametrize("family", MODELS)
def test_two_parts_of_every_family_compute_what_transformers_does(
    family: str, tmp_path: Path
) -> None:
    model = MODELS[family]()
    card = saved(model, tmp_path)
    parts = two_parts(tmp_path, card)
    for each in parts:
        each.load()

    found = through(parts, dict(inputs_of(family)))

    assert torch.allclose(found, expected(model, inputs_of(family)), atol=1e-5)


@pytest.mark.parametrize("family", MODELS)
def test_a_part_opens_its_own_tensors_and_no_others(family: str, tmp_path: Path) -> None:
    model = MODELS[family]()
    card = saved(model, tmp_path)
    opened = [set(each.load().opened) for each in two_parts(tmp_path, card)]
    everything = set(part(tmp_path, card, range(4), of=4).load().opened)

    shared = opened[0] & opened[1]
    # A tied head is the vocabulary's table, which is then of the first part and of the last.
    assert shared <= {"transformer.wte.weight"}
    assert opened[0] | opened[1] == everything
    layer_of_last = {name for name in everything if ".3." in name}
    assert layer_of_last
    assert not layer_of_last & opened[0]


def test_weights_in_several_files_are_found_by_their_index(tmp_path: Path) -> None:
    model = llama()
    card = saved(model, tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    parts = two_parts(tmp_path, card)
    for each in parts:
        each.load()

    found = through(parts, dict(inputs_of("llama")))

    assert torch.allclose(found, expected(model, inputs_of("llama")), atol=1e-5)


def test_layers_beyond_the_memory_cap_are_brought_in_for_their_turn(tmp_path: Path) -> None:
    model = llama(num_hidden_layers=6)
    card = saved(model, tmp_path)
    whole = part(tmp_path, card, range(6), of=6)
    whole.load()
    layer_bytes = sum(p.numel() * 4 for p in model.model.layers[0].parameters())
    outer_bytes = whole.load().weight_bytes - 6 * layer_bytes
    capped = part(tmp_path, card, range(6), of=6, max_memory_bytes=outer_bytes + 3 * layer_bytes)
    capped.load()

    for _ in range(3):
        found = through([capped], dict(inputs_of("llama")))
        assert torch.allclose(found, expected(model, inputs_of("llama")), atol=1e-5)
        held = sum(not p.is_meta for p in capped._model.model.layers.parameters())
        # One layer stays for good, and the one that comes next may be in already.
        assert held <= 2 * len(list(model.model.layers[0].parameters()))
        # Read again at every step, listed once.
        assert len(capped._files.opened) <= len(capped._files.names)


def test_a_cap_leaves_no_page_of_the_files_mapped(tmp_path: Path) -> None:
    """Weights that are float32 in their files could be views on them, which nobody lets go."""
    card = saved(llama(num_hidden_layers=6), tmp_path)
    free = part(tmp_path, card, range(6), of=6)
    free.load()
    assert mapped_files(tmp_path)
    free.close()
    del free
    gc.collect()
    assert not mapped_files(tmp_path)

    capped = part(tmp_path, card, range(6), of=6, max_memory_bytes=2**20)
    capped.load()
    through([capped], dict(inputs_of("llama")))

    assert not mapped_files(tmp_path)


def held_bytes() -> int:
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in x)
    return int(line.split()[1]) * 1024


def grown_under_a_cap(folder: Path, card: Any, cap_bytes: int) -> int:
    """In a process of its own: what it holds more than before it had a model."""
    before = held_bytes()
    capped = part(folder, card, range(12), of=12, max_memory_bytes=cap_bytes)
    capped.load()
    for _ in range(5):
        through([capped], dict(inputs_of("llama")))
    return held_bytes() - before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets glibc's allocator")
def test_a_cap_is_kept_by_the_process_not_only_by_its_tensors(tmp_path: Path) -> None:
    """Freed weights that the C library keeps would take half as much again."""
    wide = {"hidden_size": 512, "intermediate_size": 2048}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4}
    model = llama(num_hidden_layers=12, **wide, **heads)
    card = saved(model, tmp_path)
    layer_bytes = sum(p.numel() * 4 for p in model.model.layers[0].parameters())
    cap_bytes = 4 * layer_bytes

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        grown = pool.submit(grown_under_a_cap, tmp_path, card, cap_bytes).result()

    assert grown < 1.25 * cap_bytes, (grown, cap_bytes)


def mapped_files(folder: Path) -> list[str]:
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return [line for line in maps if str(folder) in line and "safetensors" in line]


def test_the_layers_that_are_in_at_once_fit_also_when_the_last_meets_the_first() -> None:
    sizes = [30, 1, 1, 30]

    assert not _fits(sizes, 0, 59)
    assert _fits(sizes, 0, 60)
    assert _fits([30], 0, 30)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_a_cache_cut_with_its_layers_gives_the_tokens_of_one_process(
    family: str, kind: str, tmp_path: Path
) -> None:
    model = MODELS[family]()
    card = saved(model, tmp_path)
    parts = two_parts(tmp_path, card, kv_cache=kind, kv_cache_tokens=32)
    for each in parts:
        each.load()
    ids = inputs_of(family)["input_ids"][:1]
    step = Step(sequence="a", is_last_only=True)

    tokens, given = [], ids
    for _ in range(6):
        given = through(parts, {"input_ids": given}, step).argmax(-1)
        tokens.append(int(given))

    wanted = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None)
    assert tokens == wanted[0, ids.shape[1] :].tolist()


def test_a_token_beyond_the_vocabulary_is_the_callers_mistake(tmp_path: Path) -> None:
    card = saved(llama(), tmp_path)
    whole = part(tmp_path, card, range(4), of=4)
    whole.load()
    with pytest.raises(InvalidRequest, match="refuses the inputs"):
        whole.run({"input_ids": torch.tensor([[10_000]])}, Step())


def test_weights_that_would_be_unpickled_are_refused(tmp_path: Path) -> None:
    card = saved(llama(), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="they would be unpickled"):
        part(tmp_path, card, range(4), of=4)


def test_the_plain_engine_streams_the_tokens_that_transformers_generates(tmp_path: Path) -> None:
    model = llama()
    card = generating(saved(model, tmp_path), {"task": "generate"})
    engine = TorchEngine(EngineSetup(card=card, folder=tmp_path, options={"task": "generate"}))
    engine.load()
    ids = inputs_of("llama")["input_ids"][:1]

    # Two streams in turn: each has a cache of its own.
    one = engine.stream({"input_ids": ids[0].numpy()}, {"max_tokens": 6})
    other = engine.stream({"input_ids": ids[0, :3].numpy()}, {"max_tokens": 6})
    found = [(int(a["token"][0]), int(b["token"][0])) for a, b in zip(one, other, strict=True)]

    for prompt, tokens in zip((ids, ids[:, :3]), zip(*found, strict=True), strict=True):
        wanted = model.generate(prompt, max_new_tokens=6, do_sample=False, eos_token_id=None)
        assert list(tokens) == wanted[0, prompt.shape[1] :].tolist()


def test_a_task_that_a_model_cannot_do_is_refused(tmp_path: Path) -> None:
    card = saved(MODELS["bert"](), tmp_path)
    with pytest.raises(ConfigError, match="option task is 'generate'; allowed: logits"):
        generating(card, {"task": "generate"})
