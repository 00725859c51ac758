"""A way to make a variant of a model: what it needs, what it builds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cluster.config.model_card import Format, ModelCard
from cluster.engines.options import Option
from cluster.errors import ConfigError
from cluster.models import EngineName
from cluster.optimization.gate.gate import GateLimits
from cluster.optimization.training.lessons import Lessons, Schedule
from cluster.tensors import Array

if TYPE_CHECKING:
    from torch import nn

Level = Literal["basic", "balanced", "max"]
LEVELS: tuple[Level, ...] = ("basic", "balanced", "max")
Target = Literal["cpu", "cuda"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "int8-weights", "int4-weights", "mixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How far recipes go that change a model's weights.

    `prune_ratio`: share of the channels (or weights) taken out. `rank_energy`: share of the squared
    singular values that a layer of low rank keeps. `schedule`: of the training afterwards.
    """

    prune_ratio: float = 0.3
    rank_energy: float = 0.999
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        for name, top in (("prune_ratio", 0.99), ("rank_energy", 1.0)):
            value = getattr(self, name)
            if not 0 < value <= top:
                raise ConfigError(
                    f"{name} is {value}; allowed: above 0 to {top:g}", key=name, value=value
                )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """What a recipe works on: the fp32 graph, calibration items, the torch module if there is one.

    `operators`: node type -> how many of them hold weights or not, of the fp32 graph. `lessons`:
    what may be trained on, when the data are real. `limits`, `is_real_data`: how what comes out is
    judged.
    """

    card: ModelCard
    onnx: Path
    calibration: tuple[dict[str, Array], ...]
    operators: Mapping[str, int]
    instructions: tuple[str, ...] = ()
    module: nn.Module | None = None
    example: Mapping[str, Array] | None = None
    lessons: Lessons | None = None
    tuning: Tuning = field(default_factory=Tuning)
    limits: GateLimits = field(default_factory=GateLimits)
    is_real_data: bool = False

    def needed_module(self) -> tuple[nn.Module, Mapping[str, Array]]:
        """Module and one row of inputs. Raises: ConfigError when a graph was given instead."""
        if self.module is None or self.example is None:
            raise ConfigError("no torch module was given", key="recipe")
        return self.module, self.example

    @property
    def is_transformer(self) -> bool:
        """Products of matrices with normalised layers between, and no convolutions to speak of."""
        has_norm = any(
            self.operators.get(each) for each in ("LayerNormalization", "ReduceMean", "Softmax")
        )
        return has_norm and self.operators.get("MatMul", 0) > self.operators.get("Conv", 0)

    @property
    def has_products(self) -> bool:
        return bool(self.operators.get("MatMul") or self.operators.get("Gemm"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """`build` fills an empty folder with `artefact`; `why_not` gives the reason to leave it out.

    `requires`: packages; the recipe is skipped, saying so, where one is missing. `parameters` are
    part of the cache key with the name. `wants_calibration`: the calibration items are, too.
    `reads_limits`: what it builds depends on the gate's. `tuned_by`: the fields of `Tuning` that it
    reads; `schedule` says that it trains.
    """

    name: str
    level: Level
    engine: EngineName
    format: Format
    artefact: str
    precision: Precision
    says: str
    build: Callable[[Material, Path], None]
    requires: tuple[str, ...] = ()
    why_not: Callable[[Material], str] = lambda material: ""
    options: Mapping[str, Option] = field(default_factory=dict)
    parameters: Mapping[str, object] = field(default_factory=dict)
    wants_calibration: bool = False
    reads_limits: bool = False
    tuned_by: tuple[str, ...] = ()
    device: Target = "cpu"


def level_named(text: str) -> Level:
    """Raises: ConfigError naming the levels."""
    for level in LEVELS:
        if level == text:
            return level
    allowed = ", ".join(LEVELS)
    raise ConfigError(
        f"level is {text!r}; allowed: {allowed}", key="level", value=text, allowed=allowed
    )


def operators_of(onnx_file: Path) -> dict[str, int]:
    """Node type -> number of nodes."""
    import onnx

    found: dict[str, int] = {}
    for node in onnx.load(str(onnx_file), load_external_data=False).graph.node:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found
