"""What the options of `optimize` ask of the search: each acts, or is told as ignored with why."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cluster.errors import ConfigError
from cluster.optimization.cache.fingerprint import hardware
from cluster.optimization.search.recipe import Level, Recipe
from cluster.optimization.search.recipes import RECIPES, recipes_of

Target = Literal["latency", "throughput", "size"]
Device = Literal["cpu", "cuda", "multi_gpu", "mobile"]
TARGETS = ("latency", "throughput", "size")
DEVICES = ("cpu", "cuda", "multi_gpu", "mobile")
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "dynamic")
THROUGHPUT_BATCH = 8


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a search is asked for. `acts` and `ignored`: option -> what it does, or why nothing."""

    recipes: tuple[Recipe, ...]
    batch_size: int = 1
    threads: int = 1
    sequence_length: int | None = None
    max_latency_ms: float | None = None
    max_size_bytes: int | None = None
    measures_memory: bool = False
    uses_mkldnn: bool = True
    is_for_phones: bool = False
    acts: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    _tests: list[Callable[[Recipe], bool]] = field(default_factory=list)

    def keep(self, key: str, says: str, test: Callable[[Recipe], bool]) -> None:
        """Only recipes that pass. Raises: ConfigError when none is left."""
        left = tuple(recipe for recipe in self.recipes if test(recipe))
        self._tests.append(test)
        if not left:
            raise ConfigError(
                f"option {key}: no recipe is left of {', '.join(r.name for r in self.recipes)}",
                key=f"options.{key}",
            )
        self.recipes = left
        self.acts[key] = says

    def widen(self, recipes: Iterable[Recipe]) -> None:
        """These as well, but for what earlier options left out."""
        self.recipes += tuple(
            recipe
            for recipe in recipes
            if recipe not in self.recipes and all(test(recipe) for test in self._tests)
        )


def plan(
    *, target: str, target_device: str, level: Level, options: Mapping[str, Any], threads: int
) -> Plan:
    """Raises: ConfigError naming option, value and what is allowed; for a device not here."""
    _one_of("target", target, TARGETS)
    _check_device(target_device)
    for key in options:
        if key not in OPTIONS:
            allowed = ", ".join(OPTIONS)
            raise ConfigError(
                f"no option {key!r}; allowed: {allowed}", key=f"options.{key}", allowed=allowed
            )
    made = Plan(recipes=recipes_of(level), threads=threads)
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


def _check_device(device: str) -> None:
    _one_of("target_device", device, DEVICES)
    if device in ("cpu", "mobile"):
        return
    from importlib.util import find_spec

    count = 0
    if find_spec("torch") is not None:
        import torch

        count = torch.cuda.device_count()
    if count < (2 if device == "multi_gpu" else 1):
        raise ConfigError(
            f"target_device {device}: this machine has {count} CUDA devices; a variant is measured "
            "where it is built. Allowed here: cpu, mobile",
            key="target_device",
            value=device,
            allowed="cpu, mobile",
        )
    raise ConfigError(
        f"target_device {device}: no recipe of the toolchain builds for GPUs yet; a GPU serves the "
        "same artefacts by ONNX Runtime's CUDA provider: load_model(...).enable_gpu_acceleration()",
        key="target_device",
        value=device,
        allowed="cpu, mobile",
    )


def _one_of(key: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        said = ", ".join(allowed)
        raise ConfigError(
            f"{key} is {value!r}; allowed: {said}", key=key, value=str(value), allowed=said
        )


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(
            f"option {key} is {value!r}; allowed: a number above 0",
            key=f"options.{key}",
            value=str(value),
        )
    return float(value)


def _whole(key: str, value: Any) -> int:
    if _number(key, value) != int(value):
        raise ConfigError(
            f"option {key} is {value!r}; allowed: a whole number", key=f"options.{key}"
        )
    return int(value)


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(
            f"option {key} is {value!r}; allowed: True, False", key=f"options.{key}",
            value=str(value),
        )  # fmt: skip
    return value


def _is_quantised(recipe: Recipe) -> bool:
    return recipe.precision in ("int8", "int8-weights", "int4-weights", "mixed")


def _is_fused(recipe: Recipe) -> bool:
    return "fused" in recipe.name


def _precision(made: Plan, key: str, value: Any) -> None:
    _one_of(f"options.{key}", value, PRECISIONS)
    if value == "fp16":
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
        made.widen(recipe for recipe in RECIPES if fits(recipe))
    made.keep(key, f"only variants in {value}", fits)


def _quantisation(made: Plan, key: str, value: Any) -> None:
    if not _flag(key, value):
        made.keep(key, "no variant with integer weights", lambda recipe: not _is_quantised(recipe))
        return
    made.acts[key] = "variants in int8 are among the candidates"
    if not any(_is_quantised(recipe) for recipe in made.recipes):
        made.widen(recipe for recipe in recipes_of("basic") if _is_quantised(recipe))


def _fusion(made: Plan, key: str, value: Any) -> None:
    if _flag(key, value):
        made.acts[key] = "fused graphs of transformers are among the candidates"
        return
    made.keep(
        key,
        "no graph is fused ahead of time (ONNX Runtime still fuses what it loads)",
        lambda recipe: not _is_fused(recipe),
    )


def _graph(made: Plan, key: str, value: Any) -> None:
    if _flag(key, value):
        made.acts[key] = "graphs simplified and fused ahead of time are among the candidates"
        made.widen(each for each in RECIPES if each.name == "onnxruntime-fp32-slim")
        return
    made.keep(
        key,
        "no graph is rewritten ahead of time (ONNX Runtime still optimises what it loads)",
        lambda recipe: not _is_fused(recipe) and "slim" not in recipe.name,
    )


def _memory(made: Plan, key: str, value: Any) -> None:
    made.measures_memory = _flag(key, value)
    made.acts[key] = (
        "peak memory of every variant is measured in a process of its own; it is not traded for"
        " speed" if value else "peak memory is not measured"
    )  # fmt: skip


def _batch(made: Plan, key: str, value: Any) -> None:
    made.batch_size = _whole(key, value)
    made.acts[key] = f"variants are timed at {made.batch_size} rows a call"


def _sequence(made: Plan, key: str, value: Any) -> None:
    made.sequence_length = _whole(key, value)
    made.acts[key] = f"random inputs have {made.sequence_length} tokens (data keep their own)"


def _threads(made: Plan, key: str, value: Any) -> None:
    made.threads = _whole(key, value)
    made.acts[key] = f"variants are built, timed and loaded with {made.threads} intra-op threads"


def _latency(made: Plan, key: str, value: Any) -> None:
    made.max_latency_ms = _number(key, value)
    made.acts[key] = f"p50 at most {made.max_latency_ms:g} ms"


def _size(made: Plan, key: str, value: Any) -> None:
    made.max_size_bytes = int(_number(key, value) * 1e6)
    made.acts[key] = f"at most {float(value):g} MB"


def _mkldnn(made: Plan, key: str, value: Any) -> None:
    made.uses_mkldnn = _flag(key, value)
    how = "with" if value else "without"
    made.acts[key] = f"torch's own variants and the eager baseline run {how} oneDNN"


def _architecture(made: Plan, key: str, value: Any) -> None:
    found = ", ".join(str(each) for each in hardware().instructions) or "none of note"
    made.ignored[key] = (
        f"variants are built and measured on this machine ({platform.machine()}; {found}), "
        f"whatever is named ({value})"
    )


def _platform(made: Plan, key: str, value: Any) -> None:
    _one_of(f"options.{key}", value, ("android", "ios"))
    if made.is_for_phones:
        made.acts[key] = f"ONNX Runtime's .ort file, which its {value} packages read"
        return
    made.ignored[key] = "it is for target_device mobile"


def _always(reason: str) -> Callable[[Plan, str, Any], None]:
    def ignore(made: Plan, key: str, value: Any) -> None:
        made.ignored[key] = reason

    return ignore


_PHONES = (
    "variants that become an .ort file of ONNX Runtime's (LiteRT and ExecuTorch files are not "
    "written); timed on this machine, which is no phone"
)
_NO_GPU_RECIPE = "target_device is a CPU: no variant runs on a GPU"

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
    "cpu_architecture": _architecture,
    "target_platform": _platform,
    "use_tensorrt": _always(
        "no recipe builds a TensorRT engine, and its libraries are not on this machine"
    ),
    "use_cudnn": _always(_NO_GPU_RECIPE),
    "gpu_architecture": _always(_NO_GPU_RECIPE),
    "enable_tensor_cores": _always(_NO_GPU_RECIPE),
    "num_gpus": _always(_NO_GPU_RECIPE),
    "parallelism": _always(
        "the search builds one variant for one device; shard_model(...) cuts a model, `replicas:` "
        "of a variant copies it"
    ),
    "enable_vectorization": _always(
        "ONNX Runtime, OpenVINO and torch always use the vector instructions that they find; none "
        "has a switch"
    ),
}
