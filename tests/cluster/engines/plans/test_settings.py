"""What a TensorRT plan is built with: decided without a GPU."""

from __future__ import annotations

import pytest

from cluster.engines.plans.settings import PlanSettings, ShapeRange, plan_key, plan_settings
from cluster.errors import ConfigError
from cluster.tensors import Signature, TensorSpec

IMAGE = Signature(
    inputs=(TensorSpec(name="image", datatype="FP32", shape=(-1, 3, 8, 8)),),
    outputs=(TensorSpec(name="scores", datatype="FP32", shape=(-1, 10)),),
)
TOKENS = Signature(
    inputs=(TensorSpec(name="ids", datatype="INT64", shape=(-1, -1)),),
    outputs=(TensorSpec(name="vectors", datatype="FP32", shape=(-1, -1, 4)),),
)


def settings(batch_sizes: tuple[int, ...] = (), **options: str | int) -> PlanSettings:
    return plan_settings(options, IMAGE, is_batched=True, batch_sizes=batch_sizes)


def test_the_profile_reaches_from_one_row_to_the_largest_batch_of_the_variant() -> None:
    assert settings((4, 16)).profile == {
        "image": ShapeRange(least=(1, 3, 8, 8), usual=(16, 3, 8, 8), greatest=(16, 3, 8, 8))
    }
    found = settings((4, 16), opt_batch_size=4, max_batch_size=32).profile["image"]
    assert (found.usual[0], found.greatest[0]) == (4, 32)
    assert found.holds((32, 3, 8, 8))
    assert not found.holds((33, 3, 8, 8))
    assert not found.holds((1, 3, 8))


def test_free_sizes_beside_the_batch_need_bounds() -> None:
    with pytest.raises(ConfigError, match="TensorRT wants bounds of every free size"):
        plan_settings({}, TOKENS, is_batched=True)

    bounds = {"min_shapes": "ids:1x8", "opt_shapes": "ids:4x64", "max_shapes": "ids:8x128"}
    found = plan_settings(bounds, TOKENS, is_batched=True)
    assert found.profile["ids"].as_list() == [[1, 8], [4, 64], [8, 128]]


@pytest.mark.parametrize(
    ("precision", "flags", "cleared"),
    [
        ("fp32", (), ("TF32",)),
        ("tf32", ("TF32",), ()),
        ("fp16", ("FP16", "TF32"), ()),
        ("bf16", ("BF16", "TF32"), ()),
        ("int8", ("INT8", "FP16", "TF32"), ()),
    ],
)
def test_precisions_are_flags_of_the_builder(
    precision: str, flags: tuple[str, ...], cleared: tuple[str, ...]
) -> None:
    found = settings(precision=precision)

    assert (found.flags, found.cleared_flags) == (flags, cleared)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "fp8"}, "precision is 'fp8'; allowed: fp32, tf32, fp16, bf16, int8"),
        ({"max_batch_size": 0}, "max_batch_size is 0; allowed: a whole number from 1"),
        ({"opt_batch_size": 9}, "opt_batch_size is 9; allowed: at most max_batch_size, 8"),
        ({"optimization_level": 6}, "optimization_level is 6; allowed: 0 to 5"),
        ({"workspace_mb": "much"}, "'workspace_mb' is a number"),
        ({"min_shapes": "image=1"}, "'image=1' is no shape"),
        ({"max_shapes": "picture:1x3x8x8"}, "no input 'picture'; allowed: image"),
        ({"max_shapes": "image:1x1x8x8"}, r"'image' is \[-1, 3, 8, 8\] in the model"),
        ({"min_shapes": "image:9x3x8x8"}, "are not in that order"),
        ({"colour": "red"}, "no option 'colour'"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, str | int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        settings(**options)


def test_a_plan_is_another_one_on_another_gpu_version_precision_or_shape() -> None:
    def digest(found: PlanSettings, **changes: str) -> str:
        facts = {
            "model_sha256": "m", "tensorrt": "10.9.0", "gpu": "H200", "compute_capability": "sm_90",
        }  # fmt: skip
        return plan_key(found, **(facts | changes)).digest

    same = digest(settings((8,)))
    others = {
        digest(settings((8,)), gpu="L4"),
        digest(settings((8,)), compute_capability="sm_89"),
        digest(settings((8,)), tensorrt="10.13.3"),
        digest(settings((8,)), model_sha256="n"),
        digest(settings((16,))),
        digest(settings((8,), precision="fp16")),
        digest(settings((8,), workspace_mb=64)),
    }

    assert same == digest(settings((8,), cache_dir="/elsewhere"))
    assert len(others | {same}) == 8
