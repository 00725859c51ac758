"""The base of every YAML section: frozen, strict about keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Unknown keys are errors: Serve's own schema lets typos pass, ours must not."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
