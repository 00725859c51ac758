"""What ONNX Runtime's CUDA and TensorRT providers are told, by the engine's options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cluster.engines.cache.artefact_cache import default_cache_root
from cluster.engines.options import Option
from cluster.errors import ConfigError

OPTIONS = ("provider", "precision", "cudnn_search")
PROVIDERS = ("auto", "tensorrt")
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")
SEARCHES = ("exhaustive", "heuristic", "default")
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


def provider_options(
    options: Mapping[str, Option], *, cache_root: Path | None = None
) -> dict[str, dict[str, str]]:
    """Provider -> its own options, as ONNX Runtime takes them. The artefact's types hold: precision
    says what TensorRT may compute fp32 in, and whether CUDA may use TF32.

    Raises: ConfigError naming the option, its value and what is allowed.
    """
    precision = _one_of(options, "precision", PRECISIONS)
    search = _one_of(options, "cudnn_search", SEARCHES)
    _one_of(options, "provider", PROVIDERS)
    folder = (cache_root or default_cache_root()) / "onnxruntime-tensorrt"
    reduced = {"fp16": "trt_fp16_enable", "bf16": "trt_bf16_enable", "int8": "trt_int8_enable"}
    tensorrt = {
        # The provider names plans by graph, GPU and version itself.
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder / precision),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
    }
    if precision in reduced:
        tensorrt[reduced[precision]] = "True"
    if precision == "int8":
        # What a QDQ graph does not quantise.
        tensorrt["trt_fp16_enable"] = "True"
    return {
        CUDA: {
            "use_tf32": "0" if precision == "fp32" else "1",
            "cudnn_conv_algo_search": search.upper(),
            # Memory grows by what is asked for: several replicas share a GPU.
            "arena_extend_strategy": "kSameAsRequested",
        },
        TENSORRT: tensorrt,
    }


def _one_of(options: Mapping[str, Option], name: str, allowed: tuple[str, ...]) -> str:
    value = options.get(name, allowed[0])
    if value not in allowed:
        said = ", ".join(allowed)
        raise ConfigError(
            f"option {name} is {value!r}; allowed: {said}",
            key=f"options.{name}",
            value=str(value),
            allowed=said,
        )
    return str(value)
