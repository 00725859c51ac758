"""Every recipe, in the order in which the search tries them."""

from __future__ import annotations

from importlib.util import find_spec

from cluster.errors import ConfigError
from cluster.optimization.export import aot_inductor
from cluster.optimization.graph import optimise
from cluster.optimization.precision import int8, openvino, weight_only
from cluster.optimization.pruning import low_rank, structured, weights
from cluster.optimization.search.gpu_recipes import GPU_RECIPES
from cluster.optimization.search.recipe import LEVELS, Level, Material, Recipe
from cluster.optimization.training import by_recipe


def _no_products(material: Material) -> str:
    return "" if material.has_products else "the graph has no products with constant matrices"


def _no_transformer(material: Material) -> str:
    return "" if material.is_transformer else "no transformer: nothing of the kind to fuse"


def _no_bfloat16(material: Material) -> str:
    has = {"avx512_bf16", "amx_bf16", "bf16"} & set(material.instructions)
    return "" if has else "the processor has no bf16 instructions (avx512_bf16, amx_bf16)"


def _no_module(material: Material) -> str:
    return "" if material.module is not None else "needs a torch module, not a graph"


def _no_lessons(material: Material) -> str:
    if material.module is None or material.lessons is not None:
        return _no_module(material)
    return "needs real data (--data) to learn from, at least four items of one row each"


def _no_taught_transformer(material: Material) -> str:
    return _no_lessons(material) or _not_dynamic_fused(material)


def _not_compiled_bf16(material: Material) -> str:
    return _no_module(material) or _no_bfloat16(material)


def _not_dynamic_fused(material: Material) -> str:
    return _no_transformer(material) or _no_products(material)


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        name="onnxruntime-fp32", level="basic", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="fp32", build=optimise.copy,
        says="the exported graph; ONNX Runtime optimises it when it loads",
    ),
    Recipe(
        name="onnxruntime-fp32-slim", level="max", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="fp32", build=optimise.slim, requires=("onnxslim",),
        says="graph simplified by onnxslim",
    ),
    Recipe(
        name="onnxruntime-fp32-fused", level="basic", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="fp32", build=optimise.fuse, why_not=_no_transformer,
        says="attention, layer norm and GELU fused by ONNX Runtime's transformers optimiser",
    ),
    Recipe(
        name="openvino-fp32", level="balanced", engine="openvino", format="openvino",
        artefact="model.xml", precision="fp32", build=openvino.convert, requires=("openvino",),
        says="OpenVINO in fp32",
    ),
    Recipe(
        name="openvino-bf16", level="balanced", engine="openvino", format="openvino",
        artefact="model.xml", precision="bf16", build=openvino.convert, requires=("openvino",),
        options={"precision": "bf16"}, why_not=_no_bfloat16,
        says="OpenVINO, products in bf16",
    ),
    Recipe(
        name="onnxruntime-int8-dynamic", level="basic", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="int8", build=int8.dynamic, why_not=_no_products,
        says="int8 weights per channel, activations quantised as they come",
    ),
    Recipe(
        name="onnxruntime-int8-dynamic-fused", level="balanced", engine="onnxruntime",
        format="onnx", artefact="model.onnx", precision="int8", build=int8.dynamic_fused,
        why_not=_not_dynamic_fused,
        says="fused graph, int8 weights per channel, activations quantised as they come",
    ),
    Recipe(
        name="onnxruntime-int8-static", level="basic", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="int8", build=int8.static, wants_calibration=True,
        says="int8 QDQ per channel, ranges calibrated",
    ),
    Recipe(
        name="openvino-int8", level="balanced", engine="openvino", format="openvino",
        artefact="model.xml", precision="int8", build=openvino.int8, wants_calibration=True,
        requires=("openvino", "nncf"),
        says="int8 by NNCF, ranges calibrated",
    ),
    Recipe(
        name="onnxruntime-mixed", level="max", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="mixed", build=int8.mixed, wants_calibration=True,
        reads_limits=True,
        says="static int8, the most sensitive stretches of the graph stay fp32",
    ),
    Recipe(
        name="onnxruntime-int8-weights", level="balanced", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="int8-weights", build=weight_only.int8,
        why_not=_no_products,
        says="8-bit weights in blocks of 32 (MatMulNBits)",
    ),
    Recipe(
        name="onnxruntime-int4-weights", level="max", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="int4-weights", build=weight_only.int4,
        why_not=_no_products,
        says="4-bit weights in blocks of 32 (MatMulNBits)",
    ),
    Recipe(
        name="openvino-int8-weights", level="max", engine="openvino", format="openvino",
        artefact="model.xml", precision="int8-weights", build=weight_only.openvino_int8,
        requires=("openvino", "nncf"), why_not=_no_products,
        says="8-bit weights per channel by NNCF",
    ),
    Recipe(
        name="openvino-int4-weights", level="max", engine="openvino", format="openvino",
        artefact="model.xml", precision="int4-weights", build=weight_only.openvino_int4,
        requires=("openvino", "nncf"), why_not=_no_products,
        says="4-bit weights in groups of 32 by NNCF",
    ),
    Recipe(
        name="onnxruntime-fp32-low-rank", level="max", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="fp32", build=low_rank.build, why_not=_no_module,
        tuned_by=("rank_energy", "schedule"),
        says="linear layers of low rank as products of two thin ones, then trained to answer alike",
    ),
    Recipe(
        name="onnxruntime-fp32-pruned-channels", level="max", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="fp32", build=structured.build_local,
        why_not=_no_module, requires=("torch_pruning",), tuned_by=("prune_ratio", "schedule"),
        says="a share of every layer's channels taken out, then trained to answer alike",
    ),
    Recipe(
        name="onnxruntime-fp32-pruned-channels-global", level="max", engine="onnxruntime",
        format="onnx", artefact="model.onnx", precision="fp32", build=structured.build_global,
        why_not=_no_module, requires=("torch_pruning",), tuned_by=("prune_ratio", "schedule"),
        says="the least important channels of all layers taken out, then trained to answer alike",
    ),
    Recipe(
        name="onnxruntime-fp32-pruned-weights", level="max", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="fp32", build=weights.build_local, why_not=_no_module,
        tuned_by=("prune_ratio", "schedule"),
        says="a share of every layer's weights zero; no engine skips zeros, so it is no faster",
    ),
    Recipe(
        name="onnxruntime-fp32-pruned-weights-global", level="max", engine="onnxruntime",
        format="onnx", artefact="model.onnx", precision="fp32", build=weights.build_global,
        why_not=_no_module, tuned_by=("prune_ratio", "schedule"),
        says="the smallest weights of all layers zero; no engine skips zeros, so it is no faster",
    ),
    Recipe(
        name="onnxruntime-int8-trained", level="max", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="int8", build=by_recipe.int8_static, why_not=_no_lessons,
        wants_calibration=True, tuned_by=("schedule",),
        says="trained to answer alike in int8, then int8 QDQ per channel",
    ),
    Recipe(
        name="onnxruntime-int8-dynamic-trained", level="max", engine="onnxruntime", format="onnx",
        artefact="model.onnx", precision="int8", build=by_recipe.int8_dynamic,
        why_not=_no_taught_transformer, tuned_by=("schedule",),
        says="trained to answer alike in int8, then int8 weights, activations as they come",
    ),
    Recipe(
        name="openvino-int8-trained", level="max", engine="openvino", format="openvino",
        artefact="model.xml", precision="int8", build=by_recipe.int8_openvino,
        requires=("openvino", "nncf"), why_not=_no_lessons, wants_calibration=True,
        tuned_by=("schedule",),
        says="trained to answer alike in int8, then int8 by NNCF",
    ),
    Recipe(
        name="inductor-fp32", level="max", engine="torch", format="aot_inductor",
        artefact="model.pt2", precision="fp32", build=aot_inductor.fp32, why_not=_no_module,
        says="compiled ahead of time by torch inductor",
    ),
    Recipe(
        name="inductor-bf16", level="max", engine="torch", format="aot_inductor",
        artefact="model.pt2", precision="bf16", build=aot_inductor.bf16,
        why_not=_not_compiled_bf16,
        says="compiled ahead of time by torch inductor, products in bf16",
    ),
)  # fmt: skip


EVERY_RECIPE = (*RECIPES, *GPU_RECIPES)


def recipes_of(level: Level) -> tuple[Recipe, ...]:
    """Those of the level and of the levels below it."""
    allowed = LEVELS[: LEVELS.index(level) + 1]
    return tuple(recipe for recipe in RECIPES if recipe.level in allowed)


def recipes_named(names: tuple[str, ...]) -> tuple[Recipe, ...]:
    """Raises: ConfigError for a name that there is not."""
    known = {recipe.name: recipe for recipe in EVERY_RECIPE}
    for name in names:
        if name not in known:
            allowed = ", ".join(known)
            raise ConfigError(
                f"no recipe {name!r}; allowed: {allowed}", key="recipe", value=name, allowed=allowed
            )
    return tuple(known[name] for name in names)


def missing(recipe: Recipe) -> str:
    """What has to be installed for it; empty when nothing."""
    absent = ", ".join(name for name in recipe.requires if find_spec(name) is None)
    return f"not installed: {absent} (pip install 'squadron-serve[optimize]')" if absent else ""
