"""The language engines by name: their classes are imported only when used."""

from __future__ import annotations

import importlib

from cluster.engines.language.engine import LanguageEngine, LanguageSetup
from cluster.engines.table import check_installed
from cluster.errors import ConfigError
from cluster.models import EngineName

LANGUAGE_ENGINES: dict[EngineName, tuple[str, str]] = {
    "torch": ("cluster.engines.language.torch", "TorchLanguageEngine"),
    "vllm": ("cluster.engines.language.vllm", "VllmEngine"),
}


def make_language_engine(name: EngineName, setup: LanguageSetup) -> LanguageEngine:
    """The engine, not yet started. Raises: ConfigError when none is, or it is not installed."""
    if name not in LANGUAGE_ENGINES:
        allowed = ", ".join(LANGUAGE_ENGINES)
        raise ConfigError(
            f"engine {name!r} generates no text; allowed: {allowed}",
            key="engine",
            value=name,
            allowed=allowed,
        )
    check_installed(name)
    module, class_name = LANGUAGE_ENGINES[name]
    made: type[LanguageEngine] = getattr(importlib.import_module(module), class_name)
    return made(setup)
