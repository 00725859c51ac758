"""Float32 greedy answers, token by token those of `transformers` on the real SmolLM2."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from cluster.config.store import ModelStore
from tests.conformance.openai.conftest import MODEL

PROMPTS = (
    "What is the capital of France?",
    "What is 2+2?",
    "Name three colors.",
    "Write a haiku about rain.",
    "Explain photosynthesis in one sentence.",
    "Who wrote Hamlet?",
    "List the planets of the solar system.",
    "Translate 'good morning' to Spanish.",
    "What is the largest ocean?",
    "Give me a recipe for pancakes.",
    "Why is the sky blue?",
    "What does HTTP stand for?",
    "Tell me a short joke.",
    "How many days are in a leap year?",
    "Describe a cat in five words.",
    "What is the boiling point of water?",
    "Write a Python function that adds two numbers.",
    "Summarize the story of Cinderella.",
    "What is gravity?",
    "Name a famous painter.",
    "How do I tie a shoelace?",
    "What is the square root of 81?",
)
NEW_TOKENS = 24


@pytest.fixture(scope="module")
def expected(root: Path) -> dict[str, str]:
    """What `generate` of transformers gives, decoded; computed here and now."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    store = ModelStore(Path(os.environ.get("SQUADRON_MODEL_STORE") or root / "models"))
    if not store.versions(MODEL):
        pytest.skip(f"{MODEL} is not fetched: squadron models fetch {MODEL}")
    folder = store.folder(MODEL)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = {}
    for prompt in PROMPTS:
        messages = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            out = model.generate(**ids, do_sample=False, max_new_tokens=NEW_TOKENS)
        new = out[0, ids["input_ids"].shape[1] :].tolist()
        found[prompt] = " ".join(map(str, new))
    return found


def generated(client: openai.OpenAI, prompt: str) -> str:
    """The chosen tokens' ids, told by their log-probabilities and looked up in the vocabulary."""
    answer = client.chat.completions.create(
        model="assistant",
        messages=[{"role": "user", "content": prompt}],
        temperature=0,
        max_tokens=NEW_TOKENS,
        logprobs=True,
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    return "\0".join(each.token for each in logprobs.content)


@pytest.fixture(scope="module")
def as_tokens(expected: dict[str, str], root: Path) -> dict[str, str]:
    from cluster.engines.language.tokens import ModelTokenizer

    store = ModelStore(Path(os.environ.get("SQUADRON_MODEL_STORE") or root / "models"))
    tokenizer = ModelTokenizer(store.folder(MODEL))
    return {
        prompt: "\0".join(tokenizer.token_text(int(each)) for each in ids.split())
        for prompt, ids in expected.items()
    }


def test_alone(client: openai.OpenAI, as_tokens: dict[str, str]) -> None:
    assert {prompt: generated(client, prompt) for prompt in PROMPTS} == as_tokens


def test_sixteen_at_once(client: openai.OpenAI, as_tokens: dict[str, str]) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda prompt: generated(client, prompt), PROMPTS))

    assert dict(zip(PROMPTS, found, strict=True)) == as_tokens
