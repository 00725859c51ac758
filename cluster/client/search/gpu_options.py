"""Options of `optimize` that are about GPUs: without one each says that it does nothing."""

from __future__ import annotations

from typing import Any

from cluster.client.search.asked import Plan, flag, one_of
from cluster.client.staged.placement import placement_of, yaml_of

NO_GPU_RECIPE = "target_device is a CPU: no variant runs on a GPU"


def tensorrt(made: Plan, key: str, value: Any) -> None:
    if made.device == "cpu":
        made.ignored[key] = NO_GPU_RECIPE
    elif flag(key, value):
        made.keep(key, "only variants on TensorRT", lambda recipe: "tensorrt" in recipe.name)
    else:
        made.keep(key, "no variant on TensorRT", lambda recipe: "tensorrt" not in recipe.name)


def tensor_cores(made: Plan, key: str, value: Any) -> None:
    if made.device == "cpu":
        made.ignored[key] = NO_GPU_RECIPE
    elif flag(key, value):
        made.acts[key] = "variants in TF32, fp16, bf16 and int8 are among the candidates"
    else:
        made.keep(
            key,
            "only fp32 without TF32, which tensor cores do not compute",
            lambda recipe: recipe.precision == "fp32" and "tf32" not in recipe.name,
        )


def cudnn(made: Plan, key: str, value: Any) -> None:
    if made.device == "cpu":
        made.ignored[key] = NO_GPU_RECIPE
    elif flag(key, value):
        made.acts[key] = "ONNX Runtime searches all of cuDNN's convolutions when it loads"
    else:
        made.ignored[key] = (
            "ONNX Runtime's CUDA provider cannot do without cuDNN; TensorRT's plans do: "
            "use_tensorrt"
        )


def gpu_architecture(made: Plan, key: str, value: Any) -> None:
    made.ignored[key] = NO_GPU_RECIPE if made.device == "cpu" else (
        f"variants are built and measured on the GPU that is here, whatever is named ({value})"
    )  # fmt: skip


def num_gpus(made: Plan, key: str, value: Any) -> None:
    if made.num_gpus < 2:
        made.ignored[key] = "it is for target_device multi_gpu"
    else:
        made.acts[key] = f"the variant's placement is on {made.num_gpus} devices"


def parallelism(made: Plan, key: str, value: Any) -> None:
    one_of(f"options.{key}", value, ("data", "model", "pipeline"))
    if made.num_gpus < 2:
        made.ignored[key] = (
            "it is for target_device multi_gpu; on one device shard_model(...) cuts a model, "
            "`replicas:` of a variant copies it"
        )
        return
    made.parallelism = str(value)
    made.acts[key] = f"the variant's section of the YAML: {section_of(made)}"


def section_of(made: Plan) -> str:
    """What a variant's YAML says of its devices: a copy on each, or one cut among them all.

    The planner checks it against the nodes there are when the variant is deployed, and gives the
    devices out.
    """
    if made.parallelism in ("", "data"):
        return f"replicas: {made.num_gpus}, device: cuda"
    return yaml_of(placement_of(made.num_gpus, made.parallelism, None)) + ", device: cuda"
