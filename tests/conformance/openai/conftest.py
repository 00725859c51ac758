"""`serve_configs/llm.yaml` with one engine and then the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import openai
import pytest
import yaml

from cluster.config.store import ModelStore
from tests.e2e.running import Running, running

MODEL = "smollm2-135m-instruct"


def serving_llm(root: Path, engine: str, folder: Path, **llm: object) -> Iterator[Running]:
    """Raises: pytest's skip where the model or the engine is not there."""
    store = ModelStore(Path(os.environ.get("SQUADRON_MODEL_STORE") or root / "models"))
    if not store.versions(MODEL):
        pytest.skip(f"{MODEL} is not fetched: squadron models fetch {MODEL}")
    if engine == "vllm" and find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: make setup-llm")
    content = yaml.safe_load((root / "serve_configs/llm.yaml").read_text())
    variant = content["applications"][0]["args"]["variants"]["assistant"]
    variant["engine"] = engine
    variant["llm"] |= {"kv_cache_bytes": 2**29, "max_model_len": 1024, "max_num_seqs": 16, **llm}
    file = folder / "llm.yaml"
    file.write_text(yaml.safe_dump(content))
    copies = folder / "run"
    copies.mkdir()
    with running(file, copies, store=store.root) as started:
        yield started


@pytest.fixture(scope="package", params=["torch", "vllm"])
def llm(
    request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp(f"llm-{request.param}")
    yield from serving_llm(root, request.param, folder)


@pytest.fixture
def client(llm: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{llm.http}/v1", api_key="unused", max_retries=0, timeout=120
    ) as made:
        yield made
