"""What a search is asked for, and the values that options may have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import ConfigError
from cluster.optimization.search.recipe import Recipe, Target, Tuning


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a search is asked for. `acts` and `ignored`: option -> what it does, or why nothing."""

    recipes: tuple[Recipe, ...]
    batch_size: int = 1
    threads: int = 1
    sequence_length: int | None = None
    max_latency_ms: float | None = None
    max_p99_ms: float | None = None
    max_size_bytes: int | None = None
    measures_memory: bool = False
    uses_mkldnn: bool = True
    is_for_phones: bool = False
    platform: str = ""
    device: Target = "cpu"
    num_gpus: int = 0
    parallelism: str = ""
    tuning: Tuning = field(default_factory=Tuning)
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

    def ignore(self, key: str, reason: str) -> None:
        self.acts.pop(key, None)
        self.ignored[key] = reason

    def widen(self, recipes: Iterable[Recipe]) -> None:
        """These as well, but for what earlier options left out."""
        self.recipes += tuple(
            recipe
            for recipe in recipes
            if recipe not in self.recipes and all(test(recipe) for test in self._tests)
        )


def one_of(key: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        said = ", ".join(allowed)
        raise ConfigError(
            f"{key} is {value!r}; allowed: {said}", key=key, value=str(value), allowed=said
        )


def number(key: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise ConfigError(
            f"option {key} is {value!r}; allowed: a number above 0",
            key=f"options.{key}",
            value=str(value),
        )
    return float(value)


def whole(key: str, value: Any) -> int:
    if number(key, value) != int(value):
        raise ConfigError(
            f"option {key} is {value!r}; allowed: a whole number", key=f"options.{key}"
        )
    return int(value)


def flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(
            f"option {key} is {value!r}; allowed: True, False", key=f"options.{key}",
            value=str(value),
        )  # fmt: skip
    return value
