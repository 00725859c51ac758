"""What vLLM is configured for: adapters, speculation, pieces of prompts; and arms of different
engines under one name, with copies to a third."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx
import numpy as np
import pytest
import yaml

from cluster.config.language.settings import LanguageConfig
from cluster.config.store import ModelStore
from cluster.engines.language.engine import LanguageSetup
from cluster.engines.language.vllm_options import engine_options
from loadtests.language.leaving import eventually, metric
from tests.conformance.openai.conftest import MODEL
from tests.e2e.running import Running, running

RANK, ALPHA = 4, 8
NUM_TOKENS = 12
PROMPTS = ("Once upon a time", "The capital of France is", "Water boils at")
LONG = "one two three four five six seven eight " * 12
"""More tokens than a step may compute: its prompt goes in pieces."""


def make_adapter(folder: Path, seed: int) -> None:
    """A LoRA adapter of random weights in the form that `peft` writes."""
    from safetensors.numpy import save_file

    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for layer in range(30):
        base = f"base_model.model.model.layers.{layer}.self_attn"
        for name, size in (("q_proj", 576), ("v_proj", 192)):
            for part, shape in (("lora_A", (RANK, 576)), ("lora_B", (size, RANK))):
                values = draw.normal(0, 0.08, shape).astype(np.float32)
                weights[f"{base}.{name}.{part}.weight"] = values
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": MODEL,
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def of_transformers(folder: Path, prompt: str, adapter: Path | None = None) -> str:
    """Greedy, with the adapter added to the weights."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    added = load_file(adapter / "adapter_model.safetensors") if adapter is not None else {}
    for key, a in added.items():
        if ".lora_A." in key:
            place = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            b = added[key.replace(".lora_A.", ".lora_B.")]
            model.get_submodule(place).weight.data += ALPHA / RANK * (b @ a)
    ids = tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        out = model.generate(**ids, do_sample=False, max_new_tokens=NUM_TOKENS)
    return str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :]))


@pytest.fixture(scope="module")
def model_folder(root: Path) -> Path:
    store = ModelStore(Path(os.environ.get("SQUADRON_MODEL_STORE") or root / "models"))
    if not store.versions(MODEL):
        pytest.skip(f"{MODEL} is not fetched: squadron models fetch {MODEL}")
    return store.folder(MODEL)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`static` is named in the configuration, `late` only lies in the folder."""
    folder = tmp_path_factory.mktemp("adapters")
    make_adapter(folder / "static", 1)
    make_adapter(folder / "late", 2)
    return folder


@pytest.fixture(scope="module")
def served(
    root: Path, model_folder: Path, adapters: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: make setup-llm")
    folder = tmp_path_factory.mktemp("features")
    content = yaml.safe_load((root / "serve_configs/llm.yaml").read_text())
    args = content["applications"][0]["args"]
    base = args["variants"].pop("assistant")
    args["variants"].pop("text-embedder")
    llm = base["llm"] | {"kv_cache_bytes": 2**28, "max_model_len": 512, "max_num_seqs": 8}
    lora = {
        "adapters": [{"name": "static", "path": str(adapters / "static")}],
        "directory": str(adapters),
        "max_loaded": 2,
        "max_rank": 8,
    }
    args["variants"] |= {
        "adapted": {**base, "llm": llm | {"lora": lora, "max_batched_tokens": 64}},
        "guessing": {**base, "llm": llm | {"speculative": {"method": "ngram", "num_tokens": 3}}},
        "plain": {
            **base,
            "engine": "torch",
            "llm": llm | {"max_num_seqs": 2, "queue": {"max_requests": 2}},
        },
    }
    args["experiments"] = {
        "assistant": {"split": {"plain": 50, "guessing": 50}, "sticky_header": "x-user"},
        "shadowed": {"split": {"plain": 100}, "mirror": {"variants": ["guessing"]}},
    }
    file = folder / "features.yaml"
    file.write_text(yaml.safe_dump(content))
    copies = folder / "run"
    copies.mkdir()
    with running(file, copies, store=model_folder.parents[1]) as started:
        yield started


def complete(served: Running, model: str, prompt: str, **fields: Any) -> httpx.Response:
    asked = {"model": model, "prompt": prompt, "max_tokens": NUM_TOKENS, "temperature": 0}
    return httpx.post(f"{served.http}/v1/completions", json=asked | fields, timeout=240)


def text(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


@pytest.mark.parametrize("name", ["static", "late"])
def test_an_adapter_answers_as_its_weights_added_to_the_models(
    served: Running, model_folder: Path, adapters: Path, name: str
) -> None:
    for prompt in PROMPTS:
        found = text(complete(served, f"adapted:{name}", prompt))

        assert found == of_transformers(model_folder, prompt, adapters / name)
        assert found != text(complete(served, "adapted", prompt))


def test_an_adapter_that_is_not_there_is_no_model(served: Running) -> None:
    answer = complete(served, "adapted:nobody", "a")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_an_adapter_is_replaced_and_taken_away_with_its_folder(
    served: Running, model_folder: Path, adapters: Path
) -> None:
    folder = adapters / "changing"
    assert complete(served, "adapted:changing", "a").status_code == 404
    for seed in (3, 4):
        make_adapter(folder, seed)
        expected = of_transformers(model_folder, PROMPTS[0], folder)
        assert text(complete(served, "adapted:changing", PROMPTS[0])) == expected
    (folder / "adapter_model.safetensors").write_bytes(b"nothing")
    assert complete(served, "adapted:changing", "a").status_code == 400
    shutil.rmtree(folder)

    assert complete(served, "adapted:changing", PROMPTS[0]).status_code == 404
    assert text(complete(served, "adapted", PROMPTS[0])) == of_transformers(
        model_folder, PROMPTS[0]
    )


def test_adapters_are_listed_below_their_model(served: Running) -> None:
    found = {
        each["id"]: each["parent"]
        for each in httpx.get(f"{served.http}/v1/models", timeout=60).json()["data"]
    }

    assert found["adapted:static"] == found["adapted:late"] == "adapted"
    # Arms of an experiment are told in a header; clients see the name that they share.
    assert found.keys() & {"assistant", "plain", "guessing"} == {"assistant"}


@pytest.mark.parametrize("model", ["adapted", "guessing", "plain"])
def test_pieces_and_guesses_change_no_token(
    served: Running, model_folder: Path, model: str
) -> None:
    for prompt in (*PROMPTS, LONG):
        assert text(complete(served, model, prompt)) == of_transformers(model_folder, prompt)


def test_guesses_and_those_that_were_right_are_counted(served: Running) -> None:
    text(complete(served, "guessing", LONG))

    # The engine's numbers are passed on twice a second.
    eventually(
        lambda: metric(served, "squadron_llm_draft_tokens_total", "guessing") > 0,
        "no guess was counted",
    )
    drafts = metric(served, "squadron_llm_draft_tokens_total", "guessing")
    assert metric(served, "squadron_llm_accepted_tokens_total", "guessing") <= drafts


def test_a_prefix_is_computed_once(served: Running) -> None:
    before = metric(served, "squadron_llm_prefix_hits_total")
    for _ in range(2):
        text(complete(served, "guessing", "A prompt that nobody has sent before: " + 3 * LONG))

    # A block has 128 tokens on a CPU.
    eventually(
        lambda: metric(served, "squadron_llm_prefix_hits_total") >= before + 128,
        "the second time was computed again",
    )


def test_two_engines_share_a_name_and_a_user_keeps_his(served: Running) -> None:
    met: dict[str, set[str]] = {}
    for user in [f"user-{number}" for number in range(12)] * 2:
        asked = {"model": "assistant", "prompt": "a", "max_tokens": 1}
        answer = httpx.post(
            f"{served.http}/v1/completions", json=asked, headers={"x-user": user}, timeout=240
        )
        assert answer.json()["model"] == "assistant"
        met.setdefault(user, set()).add(answer.headers["x-squadron-variant"])

    assert all(len(arms) == 1 for arms in met.values())
    assert set.union(*met.values()) == {"plain", "guessing"}


def test_copies_of_streams_and_answers_are_compared_by_what_they_say(served: Running) -> None:
    for prompt in PROMPTS:
        assert text(complete(served, "shadowed", prompt))
        assert complete(served, "shadowed", prompt, stream=True).text.endswith("[DONE]\n\n")

    def agreement() -> dict[str, Any]:
        found = httpx.get(f"{served.http}/admin/v1/experiments", timeout=60).json()
        (shadowed,) = (each for each in found if each["name"] == "shadowed")
        (arm,) = (each for each in shadowed["arms"] if each["name"] == "guessing")
        return arm["agreement"] or {"mirrored": 0}

    eventually(lambda: agreement()["mirrored"] >= 2 * len(PROMPTS), "no copy was compared")
    found = agreement()
    assert (found["failed"], found["skipped"], found["top1"]) == (0, 0, 1.0)


def test_what_the_queue_cannot_hold_is_refused_and_the_rest_is_right(served: Running) -> None:
    """Two are computed, two wait."""
    expected = text(complete(served, "plain", PROMPTS[0]))
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: complete(served, "plain", PROMPTS[0]), range(12)))

    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) <= 8
    for answer in refused:
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "the most that may" in answer.json()["error"]["message"]
    assert {text(answer) for answer in answers if answer not in refused} == {expected}


def test_every_option_is_one_of_vllms(served: Running, model_folder: Path) -> None:
    """So a renamed one is noticed here and not by an operator."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    known = set(inspect.signature(AsyncEngineArgs).parameters)
    llm = {
        "lora": {},
        "speculative": {},
        "kv_cache_bytes": 1,
        "max_model_len": 1,
        "max_batched_tokens": 1,
        "block_size": 16,
        "tensor_parallel": 2,
    }
    config = LanguageConfig.model_validate(llm)
    for on_gpu in (False, True):
        setup = LanguageSetup(name="m", folder=model_folder, config=config)
        assert set(engine_options(setup, on_gpu=on_gpu)) <= known


def test_an_answer_that_comes_whole_counts_as_answered(served: Running) -> None:
    """It is read to its end at the door; one that is left early counts as cancelled."""

    def counted(outcome: str) -> float:
        with urlopen(served.metrics, timeout=60) as page:
            lines = page.read().decode().splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith("squadron_requests_total{") and f'"{outcome}"' in line
        )

    before = counted("success"), counted("cancelled")
    for _ in range(20):
        text(complete(served, "plain", "a", max_tokens=1))

    eventually(lambda: counted("success") >= before[0] + 20, "they were not counted")
    assert counted("cancelled") == before[1]
