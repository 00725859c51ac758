"""What the SDK tells: values that can be read by attribute and by key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any


class Told:
    """Base of the SDK's answers: `answer.latency_ms` and `answer["latency_ms"]` are the same."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        """Raises: KeyError naming the keys that there are."""
        if key not in self.keys():
            raise KeyError(f"no {key!r}; there are {', '.join(self.keys())}")
        return getattr(self, key)

    def keys(self) -> tuple[str, ...]:
        return tuple(field.name for field in fields(self))  # type: ignore[arg-type]  # dataclasses

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def as_dict(self) -> dict[str, Any]:
        """Plain values throughout, ready for JSON."""
        return {key: _plain(getattr(self, key)) for key in self.keys()}


def is_number(value: object) -> bool:
    """Whether a caller gave a number where one is wanted."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Told):
    """What became of a wish: whether it acts, and what it does or why it does nothing.

    True when it acts.
    """

    name: str
    acts: bool
    says: str

    def __bool__(self) -> bool:
        return self.acts


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFigure(Told):
    """One batch size of a benchmark; `items_per_s` is of wall time."""

    batch_size: int
    latency_ms: float
    p99_ms: float | None
    cpu_ms: float
    items_per_s: float
    num_calls: int


def _plain(value: Any) -> Any:
    if isinstance(value, Told):
        return value.as_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return value
