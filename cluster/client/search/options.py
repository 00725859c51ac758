"""What the options of `optimize` ask of the search: each acts, or is told as ignored with why."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from cluster.client.search import gpu_options
from cluster.client.search.asked import Plan, flag, number, one_of, whole
from cluster.errors import ConfigError
from cluster.optimization.cache.fingerprint import hardware
from cluster.optimization.search.gpu_recipes import GPU_RECIPES, gpu_recipes_of
from cluster.optimization.search.recipe import Level, Recipe
from cluster.optimization.search.recipes import RECIPES, recipes_of

Target = Literal["latency", "throughput", "size"]
Device = Literal["cpu", "cuda", "multi_gpu", "mobile"]
TARGETS = ("latency", "throughput", "size")
DEVICES = ("cpu", "cuda", "multi_gpu", "mobile")
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "dynamic")
THROUGHPUT_BATCH = 8


def plan(
    *, target: str, target_device: str, level: Level, options: Mapping[str, Any], threads: int
) -> Plan:
    """Raises: ConfigError naming option, value and what is allowed; for a device not here."""
    one_of("target", target, TARGETS)
    _check_device(target_device, options)
    for key in options:
        if key not in OPTIONS:
            allowed = ", ".join(OPTIONS)
            raise ConfigError(
                f"no option {key!r}; allowed: {allowed}", key=f"options.{key}", allowed=allowed
            )
    made = Plan(recipes=recipes_of(level), threads=threads)
    if target_device in ("cuda", "multi_gpu"):
        made.device, made.num_gpus = "cuda", 1
        made.recipes = gpu_recipes_of(level)
    if target_device == "multi_gpu":
        made.num_gpus = whole("num_gpus", options.get("num_gpus") or 2)
    if target_device == "mobile":
        made.is_for_phones = True
        made.keep("target_device", _PHONES, lambda recipe: recipe.format == "onnx")
    if target == "throughput":
        made.batch_size = THROUGHPUT_BATCH
    # In the order of the table: what widens the choice of recipes comes before what narrows it.
    for key, apply in OPTIONS.items():
        if options.get(key) is not None:
            apply(made, key, options[key])
    return made


def _check_device(device: str, options: Mapping[str, Any]) -> None:
    one_of("target_device", device, DEVICES)
    if device in ("cpu", "mobile"):
        return
    from importlib.util import find_spec

    count = 0
    if find_spec("torch") is not None:
        import torch

        count = torch.cuda.device_count()
    needed = 1
    if device == "multi_gpu":
        needed = max(2, whole("num_gpus", options.get("num_gpus") or 2))
    if count < needed:
        raise ConfigError(
            f"target_device {device}: this machine has {count} CUDA devices, {needed} are needed; "
            "a variant is measured where it is built. Allowed here: cpu, mobile"
            + (", cuda" if count else ""),
            key="target_device",
            value=device,
            allowed="cpu, mobile",
        )


def _is_quantised(recipe: Recipe) -> bool:
    return recipe.precision in ("int8", "int8-weights", "int4-weights", "mixed")


def _is_int8(recipe: Recipe) -> bool:
    return recipe.precision == "int8" and "trained" not in recipe.name


def _every(made: Plan) -> tuple[Recipe, ...]:
    """What there is for the device."""
    return RECIPES if made.device == "cpu" else GPU_RECIPES


def _is_fused(recipe: Recipe) -> bool:
    return "fused" in recipe.name


def _precision(made: Plan, key: str, value: Any) -> None:
    one_of(f"options.{key}", value, PRECISIONS)
    if value == "fp16" and made.device == "cpu":
        made.ignored[key] = (
            "no recipe builds fp16: CPUs without fp16 products cast it back to fp32 (measured: "
            "slower than fp32); on a GPU the engine serves fp16 artefacts as they are"
        )
        return
    wanted = {"dynamic": "int8"}.get(value, value)

    def fits(recipe: Recipe) -> bool:
        is_dynamic = "dynamic" in recipe.name
        return recipe.precision == wanted and (value != "dynamic" or is_dynamic)

    if not any(fits(recipe) for recipe in made.recipes):
        made.widen(recipe for recipe in _every(made) if fits(recipe))
    made.keep(key, f"only variants in {value}", fits)
    if "enable_quantization" in made.acts and not any(map(_is_quantised, made.recipes)):
        made.ignore("enable_quantization", f"precision asks for variants in {value} alone")


def _quantisation(made: Plan, key: str, value: Any) -> None:
    if not flag(key, value):
        made.keep(key, "no variant with integer weights", lambda recipe: not _is_quantised(recipe))
        return
    made.acts[key] = "variants in int8 are among the candidates"
    if not any(_is_quantised(recipe) for recipe in made.recipes):
        made.widen(recipe for recipe in _every(made) if _is_int8(recipe))


def _fusion(made: Plan, key: str, value: Any) -> None:
    if made.device != "cpu":
        flag(key, value)
        made.ignored[key] = _GPU_GRAPHS
        return
    if flag(key, value):
        made.acts[key] = "fused graphs of transformers are among the candidates"
        return
    made.keep(
        key,
        "no graph is fused ahead of time (ONNX Runtime still fuses what it loads)",
        lambda recipe: not _is_fused(recipe),
    )


def _graph(made: Plan, key: str, value: Any) -> None:
    if made.device != "cpu":
        flag(key, value)
        made.ignored[key] = _GPU_GRAPHS
        return
    if flag(key, value):
        made.acts[key] = "graphs simplified and fused ahead of time are among the candidates"
        made.widen(each for each in RECIPES if each.name == "onnxruntime-fp32-slim")
        return
    made.keep(
        key,
        "no graph is rewritten ahead of time (ONNX Runtime still optimises what it loads)",
        lambda recipe: not _is_fused(recipe) and "slim" not in recipe.name,
    )


def _memory(made: Plan, key: str, value: Any) -> None:
    if made.device != "cpu":
        flag(key, value)
        made.ignored[key] = "memory of variants on a GPU is not measured"
        return
    made.measures_memory = flag(key, value)
    made.acts[key] = (
        "peak memory of every variant is measured in a process of its own; it is not traded for"
        " speed" if value else "peak memory is not measured"
    )  # fmt: skip


def _batch(made: Plan, key: str, value: Any) -> None:
    made.batch_size = whole(key, value)
    made.acts[key] = f"variants are timed at {made.batch_size} rows a call"


def _sequence(made: Plan, key: str, value: Any) -> None:
    made.sequence_length = whole(key, value)
    made.acts[key] = f"random inputs have {made.sequence_length} tokens (data keep their own)"


def _threads(made: Plan, key: str, value: Any) -> None:
    made.threads = whole(key, value)
    made.acts[key] = f"variants are built, timed and loaded with {made.threads} intra-op threads"


def _latency(made: Plan, key: str, value: Any) -> None:
    made.max_latency_ms = number(key, value)
    made.acts[key] = f"p50 at most {made.max_latency_ms:g} ms"


def _p99(made: Plan, key: str, value: Any) -> None:
    made.max_p99_ms = number(key, value)
    made.acts[key] = f"p99 at most {made.max_p99_ms:g} ms (of fewer than 100 calls the slowest)"


def _size(made: Plan, key: str, value: Any) -> None:
    made.max_size_bytes = int(number(key, value) * 1e6)
    made.acts[key] = f"at most {float(value):g} MB"


def _share(made: Plan, key: str, value: Any) -> None:
    share = number(key, value)
    made.tuning = (
        replace(made.tuning, prune_ratio=share)
        if key == "prune_ratio"
        else replace(made.tuning, rank_energy=share)
    )
    made.acts[key] = f"{value:g} in the recipes that it is for (level max)"


def _steps(made: Plan, key: str, value: Any) -> None:
    schedule = replace(made.tuning.schedule, steps=whole(key, value))
    made.tuning = replace(made.tuning, schedule=schedule)
    made.acts[key] = f"recipes that train (level max, with data) make {schedule.steps} steps"


def _mkldnn(made: Plan, key: str, value: Any) -> None:
    if made.device != "cpu":
        flag(key, value)
        made.ignored[key] = "oneDNN computes on processors; target_device is a GPU"
        return
    made.uses_mkldnn = flag(key, value)
    how = "with" if value else "without"
    made.acts[key] = f"torch's own variants and the eager baseline run {how} oneDNN"


def _architecture(made: Plan, key: str, value: Any) -> None:
    found = ", ".join(str(each) for each in hardware().instructions) or "none of note"
    made.ignored[key] = (
        f"variants are built and measured on this machine ({platform.machine()}; {found}), "
        f"whatever is named ({value})"
    )


def _platform(made: Plan, key: str, value: Any) -> None:
    one_of(f"options.{key}", value, ("android", "ios"))
    if made.is_for_phones:
        made.platform = str(value)
        made.acts[key] = (
            f"ONNX Runtime's .ort file, which its {value} packages read; of a torch module "
            "LiteRT's .tflite and ExecuTorch's .pte as well, where their converters are"
        )
        return
    made.ignored[key] = "it is for target_device mobile"


def _always(reason: str) -> Callable[[Plan, str, Any], None]:
    def ignore(made: Plan, key: str, value: Any) -> None:
        made.ignored[key] = reason

    return ignore


_GPU_GRAPHS = (
    "no recipe for a GPU rewrites the graph ahead of time; ONNX Runtime and TensorRT fuse what "
    "they load"
)
_PHONES = (
    "variants that become an .ort file of ONNX Runtime's (with target_platform also .tflite and "
    ".pte of a torch module); timed on this machine, which is no phone"
)

OPTIONS: dict[str, Callable[[Plan, str, Any], None]] = {
    "enable_graph_optimization": _graph,
    "enable_quantization": _quantisation,
    "enable_kernel_fusion": _fusion,
    "precision": _precision,
    "batch_size": _batch,
    "sequence_length": _sequence,
    "enable_memory_optimization": _memory,
    "num_threads": _threads,
    "use_mkldnn": _mkldnn,
    "max_model_size_mb": _size,
    "target_latency_ms": _latency,
    "target_p99_ms": _p99,
    "prune_ratio": _share,
    "rank_energy": _share,
    "training_steps": _steps,
    "cpu_architecture": _architecture,
    "target_platform": _platform,
    "use_tensorrt": gpu_options.tensorrt,
    "use_cudnn": gpu_options.cudnn,
    "gpu_architecture": gpu_options.gpu_architecture,
    "enable_tensor_cores": gpu_options.tensor_cores,
    "num_gpus": gpu_options.num_gpus,
    "parallelism": gpu_options.parallelism,
    "enable_vectorization": _always(
        "ONNX Runtime, OpenVINO and torch always use the vector instructions that they find; none "
        "has a switch"
    ),
}
