"""What a TensorRT plan is built with, and what makes it another plan. Nothing here needs a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.engines.cache.artefact_cache import CacheKey, cache_key
from cluster.engines.options import Option, check_option_names, number_option
from cluster.errors import ConfigError
from cluster.tensors import Signature

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")
OPTIONS = (
    "precision",
    "max_batch_size",
    "opt_batch_size",
    "min_shapes",
    "opt_shapes",
    "max_shapes",
    "workspace_mb",
    "optimization_level",
    "cache_dir",
)
DEFAULT_MAX_BATCH = 8
DEFAULT_WORKSPACE_MB = 4096
LEVELS = range(6)

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeRange:
    """Least, usual and greatest shape of one input; TensorRT times its kernels at `usual`."""

    least: Shape
    usual: Shape
    greatest: Shape

    def holds(self, shape: Shape) -> bool:
        return len(shape) == len(self.least) and all(
            low <= size <= high
            for low, size, high in zip(self.least, shape, self.greatest, strict=True)
        )

    def as_list(self) -> list[list[int]]:
        return [list(self.least), list(self.usual), list(self.greatest)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """`profile`: input -> range of its shapes. `flags`: names of TensorRT's `BuilderFlag`."""

    precision: str
    profile: Mapping[str, ShapeRange]
    workspace_bytes: int
    optimization_level: int
    cache_dir: str = ""

    @property
    def flags(self) -> tuple[str, ...]:
        """TF32 is on in TensorRT unless cleared; int8 lets what is not quantised be fp16."""
        return {
            "fp32": (),
            "tf32": ("TF32",),
            "fp16": ("FP16", "TF32"),
            "bf16": ("BF16", "TF32"),
            "int8": ("INT8", "FP16", "TF32"),
        }[self.precision]

    @property
    def cleared_flags(self) -> tuple[str, ...]:
        return () if "TF32" in self.flags else ("TF32",)


def plan_settings(
    options: Mapping[str, Option],
    signature: Signature,
    *,
    is_batched: bool,
    batch_sizes: Sequence[int] = (),
) -> PlanSettings:
    """`batch_sizes`: those that the replica will send; the largest bounds the profile.

    Raises: ConfigError naming the option, its value and what is allowed.
    """
    check_option_names("tensorrt", options, OPTIONS)
    precision = options.get("precision", "fp32")
    if precision not in PRECISIONS:
        allowed = ", ".join(PRECISIONS)
        raise ConfigError(
            f"option precision is {precision!r}; allowed: {allowed}",
            key="options.precision",
            value=str(precision),
            allowed=allowed,
        )
    greatest = _count(options, "max_batch_size", max(batch_sizes, default=DEFAULT_MAX_BATCH))
    usual = _count(options, "opt_batch_size", greatest)
    if usual > greatest:
        raise ConfigError(
            f"option opt_batch_size is {usual}; allowed: at most max_batch_size, {greatest}",
            key="options.opt_batch_size",
            value=str(usual),
        )
    level = _count(options, "optimization_level", 3, least=0)
    if level not in LEVELS:
        raise ConfigError(
            f"option optimization_level is {level}; allowed: 0 to 5",
            key="options.optimization_level",
            value=str(level),
            allowed="0 to 5",
        )
    return PlanSettings(
        precision=str(precision),
        profile=_profile(options, signature, is_batched, usual, greatest),
        workspace_bytes=_count(options, "workspace_mb", DEFAULT_WORKSPACE_MB) * 2**20,
        optimization_level=level,
        cache_dir=str(options.get("cache_dir", "")),
    )


def plan_key(
    settings: PlanSettings, *, model_sha256: str, tensorrt: str, gpu: str, compute_capability: str
) -> CacheKey:
    """A plan runs on the kind of GPU and the version of TensorRT that it was built with, alone."""
    return cache_key(
        model_sha256=model_sha256,
        recipe={
            "name": "tensorrt-plan",
            "precision": settings.precision,
            "profile": {name: each.as_list() for name, each in settings.profile.items()},
            "workspace_bytes": settings.workspace_bytes,
            "optimization_level": settings.optimization_level,
        },
        libraries={"tensorrt": tensorrt},
        hardware={"gpu": gpu, "compute_capability": compute_capability},
    )


def parse_shapes(text: str, option: str) -> dict[str, Shape]:
    """`image:1x3x224x224,mask:1x128`, as trtexec writes shapes. Raises: ConfigError."""
    found: dict[str, Shape] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, colon, sizes = part.rpartition(":")
        numbers = sizes.split("x")
        if not colon or not name or not all(each.isdecimal() and int(each) for each in numbers):
            raise ConfigError(
                f"option {option}: {part!r} is no shape; write input:1x3x224x224",
                key=f"options.{option}",
                value=part,
            )
        found[name] = tuple(int(each) for each in numbers)
    return found


def _profile(
    options: Mapping[str, Option],
    signature: Signature,
    is_batched: bool,
    usual: int,
    greatest: int,
) -> dict[str, ShapeRange]:
    given = {
        option: parse_shapes(str(options.get(option, "")), option)
        for option in ("min_shapes", "opt_shapes", "max_shapes")
    }
    names = {spec.name for spec in signature.inputs}
    for option, told in given.items():
        for name in told:
            if name not in names:
                raise ConfigError(
                    f"option {option}: the model has no input {name!r}; allowed: "
                    f"{', '.join(sorted(names))}",
                    key=f"options.{option}",
                    value=name,
                )
    found: dict[str, ShapeRange] = {}
    for spec in signature.inputs:
        shapes: list[Shape] = []
        for option, rows in (("min_shapes", 1), ("opt_shapes", usual), ("max_shapes", greatest)):
            said = given[option].get(spec.name)
            shapes.append(said or _filled(spec.name, spec.shape, is_batched, rows, option))
        least, middle, most = shapes
        for option, shape in zip(given, shapes, strict=True):
            fits = len(shape) == len(spec.shape) and all(
                is_ in (-1, size) for is_, size in zip(spec.shape, shape, strict=True)
            )
            if not fits:
                raise ConfigError(
                    f"option {option}: {spec.name!r} is {list(spec.shape)} in the model, not "
                    f"{list(shape)}",
                    key=f"options.{option}",
                    value="x".join(map(str, shape)),
                )
        if not all(a <= b <= c for a, b, c in zip(least, middle, most, strict=True)):
            raise ConfigError(
                f"{spec.name!r}: least {list(least)}, usual {list(middle)} and greatest shape "
                f"{list(most)} are not in that order",
                key="options.min_shapes",
            )
        found[spec.name] = ShapeRange(least=least, usual=middle, greatest=most)
    return found


def _filled(name: str, shape: Sequence[int], is_batched: bool, rows: int, option: str) -> Shape:
    first = (rows,) if is_batched else tuple(shape[:1])
    filled = (*first, *shape[1:])
    if any(size == -1 for size in filled):
        raise ConfigError(
            f"input {name!r} is {list(shape)}: TensorRT wants bounds of every free size; give "
            f"options min_shapes, opt_shapes and max_shapes, as in {name}:1x128",
            key=f"options.{option}",
        )
    return filled


def _count(options: Mapping[str, Option], name: str, default: int, *, least: int = 1) -> int:
    value = number_option("tensorrt", options, name)
    if value is None:
        return default
    if value != int(value) or value < least:
        raise ConfigError(
            f"option {name} is {value}; allowed: a whole number from {least}",
            key=f"options.{name}",
            value=str(value),
            allowed=f"a whole number from {least}",
        )
    return int(value)
