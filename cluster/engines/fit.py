"""Can this model be served like this here: asked before anything starts."""

from __future__ import annotations

from cluster.config.device import parse_device
from cluster.config.model_card import ModelCard
from cluster.engines.table import ENGINES, check_installed, default_engine
from cluster.errors import ConfigError
from cluster.models import EngineName


def check_fit(card: ModelCard, engine: EngineName | None, device: str) -> EngineName:
    """The engine that will run the model: the configured one, else the default of its format.

    Raises: ConfigError for an engine that cannot run the format or is not installed (with what to
    install), and for a device that no engine drives.
    """
    chosen = engine or default_engine(card.format)
    formats = ENGINES[chosen].formats
    if card.format not in formats:
        able = [name for name, entry in ENGINES.items() if card.format in entry.formats]
        raise ConfigError(
            f"engine {chosen!r} cannot run {card.name}, which is {card.format} "
            f"(it runs {', '.join(formats)}); allowed: {', '.join(able)}",
            key="engine",
            value=chosen,
            allowed=", ".join(able),
        )
    check_installed(chosen)
    parse_device(device)
    return chosen
