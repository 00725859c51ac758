"""Our words for a language model's set-up and its sampling in vLLM's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.config.language.settings import LanguageConfig, SpeculativeConfig
from cluster.engines.language.engine import LanguageSetup
from cluster.generation import Grammar, Sampling


def engine_options(setup: LanguageSetup, *, on_gpu: bool) -> dict[str, Any]:
    """The keyword arguments of vLLM's `AsyncEngineArgs`; a value left to vLLM is absent."""
    config = setup.config
    options: dict[str, Any] = {
        "model": str(setup.folder),
        "served_model_name": [setup.name],
        "tensor_parallel_size": config.tensor_parallel,
        "pipeline_parallel_size": config.pipeline_parallel,
        "dtype": config.dtype,
        "quantization": config.quantisation,
        "kv_cache_dtype": config.kv_cache_dtype,
        "load_format": config.load_format,
        "max_num_seqs": config.max_num_seqs,
        "enable_prefix_caching": config.prefix_caching,
        "enable_chunked_prefill": config.chunked_prefill,
        # Nothing compiles on a CPU machine without a compiler; graphs are a GPU's.
        "enforce_eager": config.enforce_eager or not on_gpu,
        "seed": config.seed,
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
        "generation_config": "vllm",
        "enable_log_requests": False,
        "disable_log_stats": False,
        **_memory(config, on_gpu=on_gpu),
    }
    if config.max_model_len:
        options["max_model_len"] = config.max_model_len
    if config.max_batched_tokens:
        options["max_num_batched_tokens"] = config.max_batched_tokens
    if config.num_devices > 1:
        # Workers take the bundles of the replica's own placement group.
        options["distributed_executor_backend"] = "ray"
    if config.speculative is not None:
        options["speculative_config"] = _speculative(config.speculative)
    if config.lora is not None:
        options["enable_lora"] = True
        options["max_loras"] = config.lora.max_loaded
        options["max_lora_rank"] = config.lora.max_rank
    return options


def _memory(config: LanguageConfig, *, on_gpu: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if config.block_size:
        options["block_size"] = config.block_size
    if on_gpu:
        options["gpu_memory_utilization"] = config.gpu_memory_utilization
    if config.kv_cache_bytes:
        options["kv_cache_memory_bytes"] = config.kv_cache_bytes
    return options


def _speculative(config: SpeculativeConfig) -> dict[str, Any]:
    options: dict[str, Any] = {
        "method": config.method,
        "num_speculative_tokens": config.num_tokens,
    }
    if config.method == "ngram":
        options["prompt_lookup_max"] = config.ngram_max
        options["prompt_lookup_min"] = config.ngram_min
    else:
        options["model"] = str(Path(config.draft_model))
    return options


def sampling_options(sampling: Sampling) -> dict[str, Any]:
    """The keyword arguments of vLLM's `SamplingParams`, but for what needs its classes."""
    return {
        "n": sampling.num_choices,
        "max_tokens": sampling.max_tokens,
        "min_tokens": sampling.min_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "stop_token_ids": list(sampling.stop_token_ids) or None,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "logit_bias": dict(sampling.logit_bias) or None,
        "logprobs": sampling.num_logprobs,
        "prompt_logprobs": sampling.num_logprobs if sampling.scores_prompt else None,
        "ignore_eos": sampling.ignore_eos,
        "include_stop_str_in_output": sampling.keeps_stop,
        "skip_special_tokens": sampling.skips_special,
        "allowed_token_ids": list(sampling.allowed_token_ids) or None,
    }


def structured_options(grammar: Grammar) -> dict[str, Any]:
    """The keyword arguments of vLLM's `StructuredOutputsParams`."""
    match grammar.kind:
        case "json_object":
            return {"json": {"type": "object"}}
        case "regex":
            return {"regex": grammar.text}
        case "lark":
            return {"grammar": grammar.text}
        case "json_schema":
            return {"json": grammar.text}
