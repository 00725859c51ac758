"""The recipes for an NVIDIA GPU. Each is skipped, saying why, where it cannot be built."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from cluster.optimization.export import aot_inductor
from cluster.optimization.graph import optimise
from cluster.optimization.precision import half, int8
from cluster.optimization.search.recipe import LEVELS, Level, Material, Recipe


def _no_module(material: Material) -> str:
    return "" if material.module is not None else "needs a torch module, not a graph"


def _no_provider(name: str) -> str:
    if find_spec("onnxruntime") is None:
        return "onnxruntime is not installed"
    import onnxruntime

    has = name in onnxruntime.get_available_providers()
    return "" if has else f"this onnxruntime has no {name}: install onnxruntime-gpu"


def _no_cuda(material: Material) -> str:
    return _no_provider("CUDAExecutionProvider")


def _no_tensorrt_provider(material: Material) -> str:
    return _no_provider("TensorrtExecutionProvider")


def _plan(name: str, level: Level, precision: str, says: str) -> Recipe:
    is_int8 = precision == "int8"
    return Recipe(
        name=name,
        level=level,
        engine="tensorrt",
        format="onnx",
        artefact="model.onnx",
        precision="int8" if is_int8 else "fp32" if precision == "tf32" else precision,  # type: ignore[arg-type]
        build=int8.symmetric if is_int8 else optimise.copy,
        wants_calibration=is_int8,
        requires=("tensorrt",),
        options={"precision": precision},
        device="cuda",
        says=says,
    )


def _aot(material: Material, folder: Path) -> None:
    aot_inductor.on_cuda(material, folder)


GPU_RECIPES: tuple[Recipe, ...] = (
    Recipe(
        name="onnxruntime-cuda-fp32", level="basic", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="fp32", build=optimise.copy, why_not=_no_cuda,
        device="cuda", options={"precision": "fp32"},
        says="the exported graph on ONNX Runtime's CUDA provider, without TF32",
    ),
    Recipe(
        name="onnxruntime-cuda-tf32", level="basic", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="fp32", build=optimise.copy, why_not=_no_cuda,
        device="cuda", options={"precision": "tf32"},
        says="the exported graph on ONNX Runtime's CUDA provider, products in TF32",
    ),
    Recipe(
        name="onnxruntime-cuda-fp16", level="basic", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="fp16", build=half.fp16, why_not=_no_cuda, device="cuda",
        says="weights and products in fp16, inputs and outputs as they were",
    ),
    Recipe(
        name="onnxruntime-tensorrt-fp16", level="balanced", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="fp16", build=optimise.copy,
        why_not=_no_tensorrt_provider, device="cuda",
        options={"provider": "tensorrt", "precision": "fp16"},
        says="ONNX Runtime's TensorRT provider in fp16, the rest on CUDA",
    ),
    _plan("tensorrt-fp32", "balanced", "fp32", "a TensorRT plan without TF32"),
    _plan("tensorrt-tf32", "balanced", "tf32", "a TensorRT plan, products in TF32"),
    _plan("tensorrt-fp16", "basic", "fp16", "a TensorRT plan, fp16 wherever it is faster"),
    _plan("tensorrt-bf16", "max", "bf16", "a TensorRT plan, bf16 wherever it is faster"),
    _plan("tensorrt-int8", "balanced", "int8", "a TensorRT plan of a calibrated QDQ graph"),
    Recipe(
        name="inductor-cuda-fp32", level="max", engine="torch", format="aot_inductor",
        artefact="model.pt2", precision="fp32", build=_aot, why_not=_no_module, device="cuda",
        says="compiled ahead of time by torch inductor for this GPU",
    ),
)  # fmt: skip


def gpu_recipes_of(level: Level) -> tuple[Recipe, ...]:
    """Those of the level and of the levels below it."""
    allowed = LEVELS[: LEVELS.index(level) + 1]
    return tuple(recipe for recipe in GPU_RECIPES if recipe.level in allowed)
