from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.config.language.settings import LanguageConfig
from cluster.engines.language.engine import LanguageSetup
from cluster.engines.language.vllm_options import engine_options, sampling_options
from cluster.generation import Sampling


def options(*, on_gpu: bool = True, **llm: Any) -> dict[str, Any]:
    config = LanguageConfig.model_validate(llm)
    setup = LanguageSetup(name="m", folder=Path("/models/m/1"), config=config)
    return engine_options(setup, on_gpu=on_gpu)


def test_degrees_are_vllms_and_take_the_replicas_placement_group() -> None:
    found = options(tensor_parallel=8, pipeline_parallel=2)

    assert (found["tensor_parallel_size"], found["pipeline_parallel_size"]) == (8, 2)
    assert found["distributed_executor_backend"] == "ray"


def test_one_device_needs_no_ray_executor() -> None:
    assert "distributed_executor_backend" not in options()


def test_what_is_not_said_is_left_to_vllm() -> None:
    assert not {"max_model_len", "max_num_batched_tokens", "block_size"} & set(options())


def test_a_cpu_reserves_no_share_of_a_gpu_and_compiles_nothing() -> None:
    found = options(on_gpu=False, kv_cache_bytes=1024)

    assert "gpu_memory_utilization" not in found
    assert found["kv_cache_memory_bytes"] == 1024
    assert found["enforce_eager"] is True


def test_speculation_by_ngrams_needs_no_model() -> None:
    assert options(speculative={"num_tokens": 3})["speculative_config"] == {
        "method": "ngram",
        "num_speculative_tokens": 3,
        "prompt_lookup_max": 4,
        "prompt_lookup_min": 1,
    }


def test_adapters_are_switched_on_with_their_bounds() -> None:
    found = options(lora={"max_loaded": 3, "max_rank": 32, "directory": "/adapters"})

    assert (found["enable_lora"], found["max_loras"], found["max_lora_rank"]) == (True, 3, 32)


@pytest.mark.parametrize("key", ["tensor_paralel", "enable_prefix_caching", "swap_space"])
def test_an_unknown_option_is_refused_by_name(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        LanguageConfig.model_validate({key: 1})


def test_a_draft_method_without_a_draft_is_refused() -> None:
    with pytest.raises(ValidationError, match="method eagle needs draft_model"):
        LanguageConfig.model_validate({"speculative": {"method": "eagle"}})


def test_greedy_sampling_stays_greedy() -> None:
    found = sampling_options(Sampling(max_tokens=5, temperature=0.0, stop=("x",)))

    assert (found["temperature"], found["max_tokens"], found["stop"]) == (0.0, 5, ["x"])
    assert found["logprobs"] is None
