"""The base of every YAML section: frozen, strict about keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Of models, variants, experiments, ensembles."""


class Section(BaseModel):
    """Unknown keys are errors: Serve's own schema lets typos pass, ours must not."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """What a validator finds wrong at `key`, a path below its own section. `value`: as Python
    writes it, empty when it says nothing."""

    key: str
    text: str
    value: str
    allowed: str = ""


class Mistakes(ValueError):
    """Several mistakes between the keys of a section, each told on a line of its own."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(f"{mistake.key}: {mistake.text}" for mistake in mistakes))
        self.mistakes = tuple(mistakes)
