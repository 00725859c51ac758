"""`prod.yaml` names a language model whose engine may not be there: listed either way."""

from __future__ import annotations

from importlib.util import find_spec

import httpx
import pytest

from tests.e2e.running import Running

pytestmark = [pytest.mark.e2e, pytest.mark.models]


def test_without_vllm_the_model_is_listed_with_the_reason(prod: Running) -> None:
    if find_spec("vllm") is not None:
        pytest.skip("vLLM is installed: the model loads")
    index = httpx.post(f"{prod.http}/v2/repository/index", timeout=60).json()
    (listed,) = (each for each in index if each["name"] == "assistant")

    assert listed["state"] == "UNAVAILABLE"
    assert "make setup-llm" in listed["reason"]
    assert httpx.get(f"{prod.http}/v2/health/ready", timeout=60).status_code == 200
    asked = {"model": "assistant", "prompt": "a"}
    answer = httpx.post(f"{prod.http}/v1/completions", json=asked, timeout=60)
    assert answer.status_code == 503
    assert "make setup-llm" in answer.json()["error"]["message"]


def test_with_vllm_the_model_is_listed_as_a_model(prod: Running) -> None:
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: make setup-llm")
    index = httpx.post(f"{prod.http}/v2/repository/index", timeout=60).json()

    assert "assistant" in {each["name"] for each in index}
